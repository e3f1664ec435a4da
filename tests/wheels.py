"""The wheel of this checkout, built once from what git knows, without a look at the network."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.places import ROOT


def tracked() -> list[str]:
    """Name the files of the checkout that are, or are to be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def built(folder: Path) -> Path:
    """Build the wheel into a folder, from a copy: what an earlier build left is not in it."""
    for name in tracked():
        if not name.startswith(("tests/", "benchmarks/", "docs/")):
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    how = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, *how, "-w", str(folder), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def files_in(wheel: Path) -> list[str]:
    """Name the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def unpacked(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a folder, and nothing that it depends on."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", str(folder), wheel], check=True)
    return folder
