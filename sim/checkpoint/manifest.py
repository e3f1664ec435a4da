"""The manifest of a checkpoint: which files belong to it, with their sizes and hashes."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from sim.files import UNFINISHED, finish, write_unfinished
from sim.tracking.run_files import FAILURES, METRICS

FORMAT, FORMAT_VERSION = "stillhouse checkpoint", 2

FIRST_FORMATS_NAME = "manifest.json"
"""What version 1 called its only manifest."""

MANIFEST = re.compile(r"manifest-(\d{6,12})\.json")
"""Names of manifests, with the round."""

ROLES = {
    "arrays": re.compile(r"arrays-(\d{6,12})\.safetensors"),
    "strategy": re.compile(r"strategy-(\d{6,12})\.safetensors"),
    "probes": re.compile(r"probes-(\d{6,12})\.safetensors"),
    "rows": re.compile(r"clients-(\d{6,12})\.parquet"),
    "states": re.compile(r"states-(\d{6,12})\.safetensors"),
}
"""Names of files by what they are to a manifest; one that names others is not followed."""

PROBES = "probes"
"""What is there only if a probe keeps something."""

Entry = dict[str, Any]
"""What a manifest says of a file: file, bytes, sha256; of rows also how many."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and says why."""

    def __init__(self, story: str) -> None:
        """Keep why, in one line: anyone may have written what is quoted in it.

        Args:
            story: Which file, and why.
        """
        super().__init__(printable(story))


class Damaged(CheckpointError):
    """One that is not as it was written: the one before it may do."""


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of showing it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


# --- what belongs to a checkpoint ---


def entries_of(content: Mapping[str, Any]) -> list[Entry]:
    """List the entries of all files that a manifest names, but for itself."""
    names = ("arrays", "strategy", "probes")
    single = [content[name] for name in names if "file" in content.get(name, {})]
    return [*single, *content["rows"], *content["states"]]


def name_of(server_round: int) -> str:
    """Return what the manifest of a round is called."""
    return f"manifest-{server_round:06d}.json"


def manifests(folder: Path) -> list[Path]:
    """List the manifests of a checkpoint folder, the latest first."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in there if MANIFEST.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2]), reverse=True)


def ours(name: str) -> bool:
    """Tell whether a file in a checkpoint folder is called as those that are written here."""
    bare = name.removesuffix(UNFINISHED)
    return any(form.fullmatch(bare) for form in (MANIFEST, *ROLES.values()))


def clear(folder: Path) -> None:
    """Make a checkpoint folder; move folders aside that have the names of files of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.iterdir()]:
        if ours(path.name) and path.is_dir() and not path.is_symlink():
            path.rename(mkdtemp(prefix=f"{path.name}.", suffix=".aside", dir=folder))


# --- writing and reading one ---


def write_manifest(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest, which is what commits a checkpoint.

    Args:
        path: Where; its name has the round.
        content: What can be said in JSON without floats.
    """
    text = json.dumps(content)
    head = {"format": FORMAT, "version": FORMAT_VERSION, "sha256": sha256(text.encode())}
    write_unfinished(path, f'{json.dumps(head)[:-1]}, "content": {text}}}\n'.encode())
    finish([path])


def read_manifest(path: Path) -> dict[str, Any]:
    """Read what `write_manifest` wrote.

    Args:
        path: The manifest.

    Returns:
        Its content.

    Raises:
        CheckpointError: It is of another program or format.
        Damaged: It cannot be read, or says what none of ours says.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path}: damaged: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise Damaged(f"{path}: not the manifest of a {FORMAT}")
    if whole.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {whole.get('version')}, this program reads "
            f"{FORMAT_VERSION}: resume with the program that wrote it"
        )
    content: dict[str, Any] = whole.get("content", {})
    if sha256(_text(path, content).encode()) != whole.get("sha256"):
        raise Damaged(f"{path}: damaged: its content has not the hash that it says")
    if (key := _odd(content)) or name_of(content["round"]) != path.name:
        raise Damaged(f"{path}: damaged: its {key or 'round'} is none that a run has written")
    return content


def _text(path: Path, content: Any) -> str:
    try:
        return json.dumps(content)
    except RecursionError as error:
        raise Damaged(f"{path}: damaged: {error}") from error


def _odd(content: Any) -> str:
    """Name what is not as `Checkpoints.commit` writes it; "" if all is."""
    if not isinstance(content, dict):
        return "content"
    checks: dict[str, Callable[[Any], bool]] = {
        "round": lambda value: _is_count(value) and 0 < value < 10**12,
        "seed": _is_count,
        "config_sha256": _is_text,
        "versions": lambda value: _is_table(value, str) and _is_text("".join(value.values())),
        "lines": lambda value: (
            _is_table(value, int)
            and value.keys() == {METRICS, FAILURES}
            and all(map(_is_count, value.values()))
        ),
        "arrays": partial(_is_entry, "arrays"),
        "strategy": lambda value: _is_reason(value) or _is_entry("strategy", value),
        "probes": lambda value: PROBES not in content or _is_entry("probes", value),
        "rows": lambda value: (
            _is_list_of("rows", value) and all(_is_count(part.get("rows")) for part in value)
        ),
        "states": partial(_is_list_of, "states"),
    }
    return next((key for key, fits in checks.items() if not fits(content.get(key))), "")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()  # a terminal obeys what is not


def _is_table(value: Any, kind: type) -> bool:
    return (
        isinstance(value, dict)
        and all(map(_is_text, value))
        and all(isinstance(each, kind) for each in value.values())
    )


def _is_reason(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"unknown"} and _is_text(value["unknown"])


def _is_entry(role: str, value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("file"), str)
        and ROLES[role].fullmatch(value["file"]) is not None
        and _is_count(value.get("bytes"))
        and _is_text(value.get("sha256"))
    )


def _is_list_of(role: str, value: Any) -> bool:
    return isinstance(value, list) and all(_is_entry(role, each) for each in value)


def sha256(content: bytes) -> str:
    """Hash bytes, as hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
