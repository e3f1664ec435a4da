"""What `gpu_check` needs beside torch, for a machine without package registries: carried files.

    python -m benchmarks.gpu_pack pack DIR [--python 3.12] [--modules DIR/modules.txt]
    python gpu_pack.py unpack DIR FOLDER      # there; prints the PYTHONPATH

Packing runs the check once on the CPU and writes down every module that any of its processes,
Ray's included, asks for. Of each package that the product requires, and torch does not, it carries
what may be imported: packages and compiled modules that nobody asked for stay here, and so do
tests, headers and Ray's jars and pages. Large packages that the machine may have are archives of
their own.
"""

import argparse
import fnmatch
import hashlib
import importlib.util
import io
import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_BYTES = 15 * 2**20
"""Of one carried file."""

TORCHLESS = ("numpy", "typing-extensions")
"""Torch's machine has them, but maybe not these: numpy is optional, and ours needs newer hints."""

UNUSED = [
    *("*/__pycache__/*", "*.pyc", "*.pyi", "*.py[xd]", "*.pxi", "*.h", "*.hpp", "*.c", "*.cpp"),
    *("*/tests/*", "*.dist-info/RECORD", "*.dist-info/licenses/*", "*.dist-info/sboms/*", "../*"),
    *("ray/jars/*", "ray/dashboard/client/*", "tensorboard/webfiles.zip"),
    "tensorboard/plugins/projector/tf_projector_plugin/*",
    # pyarrow's libraries are there under up to three names; they are linked by the middle one
    *("pyarrow/lib*.so", "pyarrow/*.so.*.*.*", "pyarrow/libarrow_flight*", "pyarrow/libarrow_s3*"),
    *("pyarrow/include/*", "pyarrow/src/*"),
]
WHOLE = tuple(
    f"ray.{name}" for name in ["_private", "core", "includes", "thirdparty_files", "util"]
)
"""Kept whole: what Ray imports on a GPU, and nobody asks for here; the programs that it starts."""

APART = {"numpy": "numpy", "scipy": "scipy", "scikit-learn": "sklearn", "pyarrow": "pyarrow"}
"""Large ones, each in an archive of its own: needed only where this cannot be imported."""

FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 27}]

LISTENER = """import os, sys
file = os.open(os.environ["ASKED_FOR"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Listener:
    def find_spec(self, name, path=None, target=None):
        os.write(file, (name + "\\n").encode())
sys.meta_path.insert(0, Listener())
"""


def asked_for() -> set[str]:
    """Run the check on the CPU; return the names of all modules that were asked for."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names"
        (Path(folder) / "sitecustomize.py").write_text(LISTENER)
        environment = {**os.environ, "PYTHONPATH": folder, "ASKED_FOR": str(names)}
        check = [sys.executable, "-m", "benchmarks.gpu_check", f"{folder}/out"]
        check += ["--device", "cpu", "--minutes", "60"]
        done = subprocess.run(check, cwd=ROOT, env=environment, check=False)
        if done.returncode:
            sys.exit("the check does not pass here, on the CPU: nothing is packed")
        return set(names.read_text().split())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(names: Iterable[str]) -> set[str]:
    """Return these and all that they require, as far as it is installed."""
    found: set[str] = set()
    left = [canonical(re.split(r"[^\w.-]", name)[0]) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        plain = [need for need in needs if "extra ==" not in need]
        left += [canonical(re.split(r"[^\w.-]", need)[0]) for need in plain]
    return found


def carried(names: set[str]) -> dict[str, str]:
    """Return packages and versions: required, asked for, and not torch's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = required([*project["dependencies"], "pytest", "pytest-timeout"])
    wanted = (wanted - required(["torch"])) | {*TORCHLESS}
    tops = {name.split(".")[0] for name in names}
    asked = {
        canonical(package)
        for top, packages in metadata.packages_distributions().items()
        if top in tops
        for package in packages
    }
    return {name: metadata.version(name) for name in sorted(wanted & asked)}


def kept(path: str, names: set[str], there: set[str]) -> bool:
    """Say whether an installed file may be needed.

    Args:
        path: of the file, in `site-packages`.
        names: of the modules that were asked for.
        there: the paths of all files.

    Returns:
        False for what nobody can ask for, or nobody did.
    """
    if any(fnmatch.fnmatch(path, pattern) for pattern in UNUSED):
        return False
    *folders, file = Path(path).parts
    if not folders or folders[0].endswith((".dist-info", ".libs")):
        return True
    packages = [".".join(folders[: depth + 1]) for depth in range(len(folders))]
    if any(package in WHOLE for package in packages):
        return True
    if any(mark in file for mark in (".cpython-", ".abi3.")):
        return ".".join([*folders, file.split(".")[0]]) in names
    # A package that nobody asked for goes with all that is in it; folders of data have no names.
    made = [package for package in packages if f"{package.replace('.', '/')}/__init__.py" in there]
    return names.issuperset(made)


def installed(versions: dict[str, str], site: Path | None) -> dict[str, list[tuple[str, Path]]]:
    """Return each package's files: their path in `site-packages`, and where they are."""
    where = {} if site is None else {"path": [str(site)]}
    found: dict[str, list[tuple[str, Path]]] = {}
    for package in metadata.distributions(**where):
        name = canonical(package.metadata["Name"])
        if name in versions and name not in found:
            files = [(str(file), Path(str(file.locate()))) for file in package.files or []]
            found[name] = [(path, there) for path, there in files if there.is_file()]
    return found


def download(versions: dict[str, str], python: str, folder: Path) -> Path:
    """Install the same versions for another Python into a folder."""
    pins = [f"{name}=={version}" for name, version in versions.items()]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = folder / "wheels"
    # What comes as source alone is pure Python: a wheel of it is made first.
    source = [pin for pin in pins if pin.startswith("antlr4")]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", wheels, *source], check=True)
    asked = ["--python-version", python, "--implementation", "cp"]
    for number in ("2_28", "2_27", "2_17", "2014"):
        asked += ["--platform", f"manylinux{'' if number == '2014' else '_'}{number}_x86_64"]
    into = ["-t", folder / "site", "--no-deps", "--only-binary=:all:", "--no-compile", "-f", wheels]
    subprocess.run([*pip, "install", "-q", *asked, *into, *pins], check=True)
    return folder / "site"


def stripped(path: Path) -> bytes:
    """Read a file, of Ray's and Arrow's programs without their tables of symbols."""
    large = path.stat().st_size > 2**20 and path.read_bytes()[:4] == b"\x7fELF"
    if not large or ".libs" in str(path) or not shutil.which("strip"):
        return path.read_bytes()  # patched libraries do not bear it
    with tempfile.NamedTemporaryFile() as copy:
        done = subprocess.run(["strip", "--strip-unneeded", "-o", copy.name, path], check=False)
        return path.read_bytes() if done.returncode else Path(copy.name).read_bytes()


def write_archive(folder: Path, name: str, files: Iterable[tuple[str, Path]]) -> int:
    """Write an archive in parts; return its size."""
    packed = io.BytesIO()
    with (
        lzma.open(packed, "w", filters=FILTERS) as out,
        tarfile.open(fileobj=out, mode="w|") as tar,
    ):
        # Alike files side by side; the order is always the same.
        for path, there in sorted(files, key=lambda file: (Path(file[0]).suffix, file[0])):
            content = stripped(there)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), there.stat().st_mode & 0o777
            tar.addfile(entry, io.BytesIO(content))
    whole = packed.getvalue()
    for number, start in enumerate(range(0, len(whole), MOST_BYTES)):
        part = folder / f"{name}.tar.xz.{number:02}"
        part.write_bytes(whole[start : start + MOST_BYTES])
    return len(whole)


def pack(folder: Path, python: str, modules: Path | None) -> None:
    """Write the carried files, and what they are; `modules` has the names of an earlier time."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in parts(folder, "*"):
        old.unlink()
    names = asked_for() if modules is None else set(modules.read_text().split())
    (folder / "modules.txt").write_text("\n".join(sorted(names)))
    versions = carried(names)
    ours = ".".join(platform.python_version_tuple()[:2])
    with tempfile.TemporaryDirectory() as place:
        site = None if python == ours else download(versions, python, Path(place))
        files = installed(versions, site)
        there = {path for each in files.values() for path, _ in each}
        for name, each in files.items():
            files[name] = [file for file in each if kept(file[0], names, there)]
        archives = {APART[name]: files.pop(name) for name in APART}
        archives["packages"] = [file for each in files.values() for file in each]
        with ThreadPoolExecutor(2) as threads:
            written = threads.map(partial(write_archive, folder), archives, archives.values())
            sizes = dict(zip(archives, written, strict=True))
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    about = {"python": python, "commit": commit.stdout.strip(), "versions": versions}
    about["sha256"] = {path.name: digest(path) for path in parts(folder, "*")}
    (folder / "about.json").write_text(json.dumps(about, indent=2))
    for name, size in sizes.items():
        print(f"{name}: {size / 2**20:.1f} MiB in {len(parts(folder, name))} files")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parts(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}.tar.xz.[0-9][0-9]"))


def unpack(folder: Path, place: Path) -> list[Path]:
    """Unpack what this machine lacks; return the folders that its PYTHONPATH is to name."""
    about = json.loads((folder / "about.json").read_text())
    ours = ".".join(platform.python_version_tuple()[:2])
    if about["python"] != ours:
        sys.exit(f"packed for Python {about['python']}, this is {ours}: pack with --python {ours}")
    lacking = [name for name in APART.values() if importlib.util.find_spec(name) is None]
    lacking.append("packages")
    for name in lacking:
        files = {file: sha for file, sha in about["sha256"].items() if file.startswith(f"{name}.")}
        for file, sha in files.items():  # what this machine has need not have been brought
            if not (folder / file).is_file() or digest(folder / file) != sha:
                sys.exit(f"{folder / file} is missing or damaged: bring it again")
        content = b"".join((folder / file).read_bytes() for file in sorted(files))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as tar:
            tar.extractall(place / name, filter="data")
    return [place / name for name in lacking]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["pack", "unpack"])
    parser.add_argument("folder", type=Path, help="of the carried files")
    parser.add_argument("place", type=Path, nargs="?", help="where to unpack")
    parser.add_argument("--python", default=".".join(platform.python_version_tuple()[:2]))
    parser.add_argument("--modules", type=Path, help="those asked for, of an earlier time")
    args = parser.parse_args()
    if args.verb == "pack":
        pack(args.folder.resolve(), args.python, args.modules)
    else:
        print(os.pathsep.join(map(str, unpack(args.folder, args.place))))


if __name__ == "__main__":
    main()
