"""`python run.py`, and modules of ours, as a user runs them: each in a process of its own.

The processes are forked from one that has imported torch, Flower, Ray, Hydra and ours, `preloaded`.
A fresh interpreter takes 4 CPU seconds for that, and the suite begins about ninety of them.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

from tests.places import ROOT


def run_py(*words: str, cwd: Path = ROOT, **env: str) -> "CompletedProcess[str]":
    """Run `python run.py` with these words, for at most 240 s.

    Where a variable is given that only a fresh interpreter takes up, it is one.
    """
    environment = {**os.environ, **env}
    if {"PYTHONHASHSEED", "HYDRA_FULL_ERROR"} & set(env):
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    return _forked(["run", *words], cwd, environment)


def run_module(name: str, *words: str) -> "CompletedProcess[str]":
    """Run `python -m name` with these words, for at most 240 s."""
    return _forked([name, *words], ROOT, dict(os.environ))


def _forked(words: list[str], cwd: Path, environment: dict[str, str]) -> "CompletedProcess[str]":
    """Run a module by its name and its words in a fork of the process that has imported much."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["tests.preloaded"])
    with TemporaryDirectory() as folder:
        told = [Path(folder) / name for name in ("out", "err")]
        process = forking.Process(target=_run, args=(words, str(cwd), environment, *told))
        process.start()
        process.join(240)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, 240, *(path.read_text() for path in told))
        code = process.exitcode
        process.close()
        assert code is not None
        return CompletedProcess(words, code, *(path.read_text() for path in told))


def _run(words: list[str], cwd: str, environment: dict[str, str], *told: Path) -> None:
    """Become `python -m` of the words, `python run.py` where they begin with `run`."""
    for number, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.update(environment)  # beside what ours set as they were imported
    os.chdir(cwd)
    sys.argv = [str(ROOT / "run.py"), *words[1:]]
    sys.path[0] = str(ROOT)
    if words[0] == "run":
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
