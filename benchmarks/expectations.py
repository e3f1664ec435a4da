"""What newcomers expect, each typed with the installed command in an empty folder: a table.

    python -m benchmarks.expectations COMMAND [FOLDER]

COMMAND is the installed `stillhouse`. The rows are those of `expectations.yaml`; later ones go on
in the folder of earlier ones.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import heading

LEARN = "data=blobs clients.num_clients=5 clients.training.epochs=1"
SHORT = {
    "{learn}": LEARN,
    "{tiny}": f"{LEARN} strategy.distil.epochs=2",
    "{quick}": "clients.training.epochs=2 strategy.distil.epochs=5",
}
MINE = """def sure(teachers):
    return teachers.logits.softmax(-1).max(-1).values


def broken(teachers):
    raise RuntimeError("not today")
"""
PYTHON = """import stillhouse

words = "{tiny} hydra.run.dir=from_python".split()
run = stillhouse.run(words, quiet=True)
print(len(run.metrics), run.student.training)
"""


def written(text: str) -> str:
    """Put the words in that many rows share."""
    for name, words in SHORT.items():
        text = text.replace(name, words)
    return text


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the expectations, each with the project that taught it."""
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    for project, expectations in content.items():
        for row in expectations:
            yield project, {"code": 0, **row}


def fault(row: dict[str, Any], command: list[str], folder: Path) -> str:
    """Type a row's words; say what is wrong with what comes, or nothing."""
    words, comes = shlex.split(written(row["types"])), row["comes"]
    if words[0] == "python":
        command, words = [str(Path(command[0]).with_name("python"))], words[1:]
    done = subprocess.run(
        [*command, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    said = done.stdout + done.stderr
    if done.returncode != row["code"]:
        return f"exit code {done.returncode}: {said[-300:]}"
    if "Traceback" in said and "mine.py" not in said:
        return f"a traceback: {said[-300:]}"
    if row["code"] and done.stderr.count("error: ") > 1:
        return f"more than one line: {done.stderr}"
    if comes.endswith("result.json"):
        one, other = (student_of(folder / each) for each in comes.split())
        return "" if one == other else f"unlike bits: {one}, {other}"
    file, _, pattern = comes.rpartition(": ")
    if file.endswith(".md"):
        said = (folder / file).read_text()
    else:
        pattern = comes
    return "" if re.search(pattern, said, re.MULTILINE) else f"no {pattern} in {said[-300:]}"


def student_of(path: Path) -> str:
    """Read the hash of a run's student."""
    return re.findall(r'"student_sha256": "(\w+)"', path.read_text())[0]


def main(words: list[str]) -> int:
    command = shlex.split(words[0])
    folder = Path(words[1]) if words[1:] else Path(tempfile.mkdtemp())
    (folder / "mine.py").write_text(MINE)
    (folder / "from_python.py").write_text(written(PYTHON))
    print(f"{heading()}\n\n| who comes from | expects | types | |\n|---|---|---|---|")
    wrong = 0
    for project, row in rows():
        said = " ".join(fault(row, command, folder).split())
        wrong += bool(said)
        typed = written(row["types"])
        typed = typed if typed.startswith("python ") else f"stillhouse {typed}"
        told = f"**{said}**" if said else "told in a line" if row["code"] else "yes"
        print(f"| {project} | {row['expects']} | `{typed}` | {told} |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
