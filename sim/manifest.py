"""The manifest of a checkpoint: which files belong to it, with their sizes and hashes."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT, FORMAT_VERSION = "stillhouse checkpoint", 1

Entry = dict[str, Any]
"""What a manifest says of a file: file, bytes, sha256."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and says why."""


def entries_of(content: Mapping[str, Any]) -> list[Entry]:
    """List the entries of all files that a manifest names, but for itself."""
    single = [content[name] for name in ("arrays", "strategy") if "file" in content.get(name, {})]
    return [*single, *content["rows"], *content["states"].values()]


def superseded(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name the files of the manifest before that the one after does not name."""
    kept = {entry["file"] for entry in entries_of(after)}
    return [entry["file"] for entry in entries_of(before) if entry["file"] not in kept]


def write_manifest(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest, which is what commits a checkpoint.

    Args:
        path: Where; a manifest that is there is replaced in one step.
        content: What can be said in JSON without floats.
    """
    text = json.dumps(content)
    head = {"format": FORMAT, "version": FORMAT_VERSION, "sha256": sha256(text.encode())}
    write_whole(path, f'{json.dumps(head)[:-1]}, "content": {text}}}\n'.encode())
    sync(path.parent)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read what `write_manifest` wrote.

    Args:
        path: The manifest.

    Returns:
        Its content.

    Raises:
        CheckpointError: It is not there, damaged, or of another program or format.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no checkpoint there; a run leaves one if checkpoint_every is at least 1"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not the manifest of a {FORMAT}")
    if whole.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {whole.get('version')}, this program reads "
            f"{FORMAT_VERSION}: resume with the program that wrote it"
        )
    content: dict[str, Any] = whole.get("content", {})
    if sha256(json.dumps(content).encode()) != whole.get("sha256"):
        raise CheckpointError(f"{path}: damaged: its content has not the hash that it says")
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there in whole or not at all, even after the power went."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself before going on."""
    if not path.exists():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(content: bytes) -> str:
    """Hash bytes, as hex."""
    return hashlib.sha256(content).hexdigest()
