"""Ctrl-C before anything is run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.places import ROOT


def test_who_stops_while_torch_is_imported_is_told_so_at_once(tmp_path: Path) -> None:
    """Torch, whose import is broken off, aborts, or does so when it is imported anew."""
    command = [sys.executable, str(ROOT / "run.py"), f"hydra.run.dir={tmp_path / 'run'}"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **streams) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dlad on digits")
        time.sleep(0.4)  # of the two seconds that the import takes
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "stopped; no round was begun\n")
    assert not (tmp_path / "run").exists()
