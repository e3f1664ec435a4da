"""A checkpoint that is not as a run wrote it is refused by its name; the one before stands in."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg

from sim.checkpoint import manifest
from sim.checkpoint.manifest import CheckpointError, name_of
from sim.tracking.clients_table import ClientsTable
from tests.checkpoints import checkpoints, committed

LAST = name_of(2)


def test_no_checkpoint_says_which_option_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint: no checkpoint .*checkpoint_every"):
        checkpoints(tmp_path).load(rounds=2)


def test_a_checkpoint_of_the_first_format_is_told_from_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "manifest.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"manifest\.json: has format version 1, this program"
    ):
        checkpoints(tmp_path).load(rounds=2)


# --- damaged files ---

FILES = [
    "arrays-000002.safetensors",
    "states-000001.safetensors",
    "states-000002.safetensors",
    "clients-000001.parquet",
    "strategy-000002.safetensors",
]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to("/etc/hostname")
    elif how != "gone":
        changed = {"bit": content, "cut": content[:-1], "longer": content + b"\0", "empty": b""}
        path.write_bytes(changed[how])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["bit", "cut", "gone", "longer", "empty", "folder", "link"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, how: str) -> None:
    committed(tmp_path, kept=1)
    damage(tmp_path / "checkpoint" / name, how)
    unread = {"gone": "cannot be read: No such file", "folder": "cannot be read: Is a directory"}
    with pytest.raises(CheckpointError, match=f"checkpoint/{name}: {unread.get(how, 'damaged: ')}"):
        checkpoints(tmp_path).load(rounds=2)


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "empty", "folder"])
@pytest.mark.parametrize("name", ["arrays-000002.safetensors", LAST])
def test_the_checkpoint_before_a_damaged_one_stands_in(tmp_path: Path, name: str, how: str) -> None:
    committed(tmp_path)
    damage(tmp_path / "checkpoint" / name, how)
    done = checkpoints(tmp_path).load(rounds=2)
    assert done.server_round == 1
    assert list(done.arrays) == ["a"]
    assert done.clients.num_rows == 3
    if name != LAST or how != "gone":  # then nobody can know that there was one
        assert done.damage.startswith(f"{tmp_path}/checkpoint/{name}: ")
        assert "\n" not in done.damage


def test_where_all_are_damaged_the_last_is_named(tmp_path: Path) -> None:
    committed(tmp_path)
    for name in ("arrays-000001.safetensors", "strategy-000002.safetensors"):
        damage(tmp_path / "checkpoint" / name, "cut")
    with pytest.raises(CheckpointError, match="strategy-000002.safetensors: damaged: "):
        checkpoints(tmp_path).load(rounds=2)


def test_a_damaged_checkpoint_takes_no_place_of_a_whole_one(tmp_path: Path) -> None:
    committed(tmp_path)
    damage(tmp_path / "checkpoint" / "arrays-000002.safetensors", "bit")
    writer = checkpoints(tmp_path)
    done = writer.load(rounds=3)
    assert (tmp_path / "checkpoint" / LAST).exists()  # nothing is removed before the next commit
    lines = {tmp_path / name: count for name, count in done.lines.items()}
    writer.commit(3, done.arrays, {}, FedAvg(), ClientsTable(done.clients), lines)
    names = [path.name for path in manifest.manifests(tmp_path / "checkpoint")]
    assert names == [name_of(3), name_of(1)]


# --- manifests that are not ours ---


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest's content and make its hash fit, as an attacker would."""
    content = manifest.read_manifest(path)
    change(content)
    manifest.write_manifest(path, content)


MANIFESTS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut": (lambda text: text[:-9], "damaged: "),
    "empty": (lambda text: "", "damaged: "),
    "deep": (lambda text: "[" * 200_000, "damaged: "),
    "another round": (
        lambda text: text.replace('"round": 2', '"round": 1'),
        "damaged: its content",
    ),
    "foreign": (lambda text: '{"format": "other"}', "not the manifest of a stillhouse checkpoint"),
    "a list": (lambda text: "[]", "not the manifest of a stillhouse checkpoint"),
    "newer": (lambda text: text.replace('"version": 2', '"version": 3'), "has format version 3, "),
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_not_ours_is_refused(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    committed(tmp_path, kept=1)
    path = tmp_path / "checkpoint" / LAST
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=f"{LAST}: {message}"):
        checkpoints(tmp_path).load(rounds=2)


def test_a_newer_format_is_not_passed_over(tmp_path: Path) -> None:
    committed(tmp_path)
    path = tmp_path / "checkpoint" / LAST
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(CheckpointError, match=f"{LAST}: has format version 3, this program reads"):
        checkpoints(tmp_path).load(rounds=2)


def setting(key: str, *values: Any) -> list[tuple[str, Callable[[dict[str, Any]], Any]]]:
    def to(value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda content: content.__setitem__(key, value)

    return [(key, to(value)) for value in values]


def entry(name: str) -> dict[str, Any]:
    return {"file": name, "bytes": 1, "sha256": "0"}


LOUD = "\x1b[2Jx\nerror: all is well"
"""What a terminal obeys."""
COUNTS = {"metrics.jsonl": 2, "failures.jsonl": 0}
ODD = [
    *setting("round", "2", 2.5, -3, 10**30, None, True, [2], 1),
    *setting("seed", "x", -1, None),
    *setting("config_sha256", 3, None, LOUD),
    *setting("versions", [], {"torch": 2}, {"torch": LOUD}, {LOUD: "2"}),
    *setting("lines", "x", {}, COUNTS | {"../../x": 3}, COUNTS | {"metrics.jsonl": -1}),
    *setting("lines", COUNTS | {"metrics.jsonl": "2"}),
    *setting("arrays", [], None, "x", entry("../secret"), entry("/etc/hostname")),
    *setting("arrays", entry("strategy-000002.safetensors"), entry("states-000002.safetensors")),
    *setting("arrays", entry("arrays-2.safetensors"), {"file": "arrays-000002.safetensors"}),
    *setting("strategy", {}, entry("arrays-000002.safetensors"), {"unknown": 3}, {"unknown": []}),
    *setting(
        "strategy", {"unknown": LOUD}, {**entry("strategy-000002.safetensors"), "sha256": LOUD}
    ),
    *setting("probes", None, [], entry("arrays-000002.safetensors")),
    *setting("rows", None, {}, "x", [None], [entry("clients-000001.parquet")]),
    *setting("rows", [{**entry("arrays-000002.safetensors"), "rows": 1}]),
    *setting("states", None, {"0": entry("states-000002.safetensors")}),
    *setting("states", [entry("states/../../x-000001.safetensors")]),
]


@pytest.mark.parametrize(("key", "change"), ODD, ids=[each[0] for each in ODD])
def test_a_forged_manifest_is_refused_by_the_key_that_is_odd(
    tmp_path: Path, key: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    committed(tmp_path, kept=1)
    path = tmp_path / "checkpoint" / LAST
    rewritten(path, change)
    with pytest.raises(CheckpointError, match=f"{LAST}: damaged: its {key} is none that a run"):
        checkpoints(tmp_path).load(rounds=2)


@pytest.mark.parametrize(("key", "value"), [("version", LOUD), ("version", [LOUD])])
def test_nothing_that_a_forged_manifest_says_reaches_the_terminal_as_it_is(
    tmp_path: Path, key: str, value: Any
) -> None:
    committed(tmp_path, kept=1)
    path = tmp_path / "checkpoint" / LAST
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(
        CheckpointError, match=r"format version .*x1b\[2Jx\\+nerror: all is"
    ) as caught:
        checkpoints(tmp_path).load(rounds=2)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("levels", [500, 5000])
def test_what_nobody_reads_may_be_deep(tmp_path: Path, levels: int) -> None:
    committed(tmp_path, kept=1)
    path = tmp_path / "checkpoint" / LAST
    text = "[" * levels + "]" * levels
    digest = hashlib.sha256(text.encode()).hexdigest()
    head = {"format": manifest.FORMAT, "version": manifest.FORMAT_VERSION, "sha256": digest}
    path.write_text(json.dumps(head)[:-1] + f', "content": {text}}}')
    with pytest.raises(CheckpointError, match=f"{LAST}: damaged: "):
        checkpoints(tmp_path).load(rounds=2)


def forged(folder: Path, name: str, content: bytes, change: Callable[..., Any]) -> None:
    """Put a file of an attacker's into the place of one, hash and all."""
    (folder / "checkpoint" / name).write_bytes(content)
    about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewritten(folder / "checkpoint" / LAST, lambda found: change(found).update(about))


def read(folder: Path, name: str) -> bytes:
    return (folder / "checkpoint" / name).read_bytes()


@pytest.mark.parametrize(
    ("key", "place", "content", "message"),
    [
        ("arrays", None, b"\x80\x04}.", "not a frozen state"),  # a pickle of {}
        ("arrays", None, "strategy-000002.safetensors", "has no arrays called 'arrays'"),
        ("strategy", None, b"x" * 99, "not a frozen state"),
        ("rows", 0, b"PAR1", "not a per-client table: "),
        ("rows", 0, "arrays-000002.safetensors", "not a per-client table: "),
        ("rows", 0, "clients-000002.parquet", "has 1 rows, the manifest says 3"),
        ("states", 0, b"", "not a file of states: "),
        ("states", 0, b"\xff" * 99, "not a file of states: "),
        ("states", 0, b"\x02" + bytes(7) + b"[]", "not a file of states: "),
        ("states", 0, "arrays-000002.safetensors", "not a file of states: "),
    ],
)  # fmt: skip
def test_files_of_another_role_are_refused(
    tmp_path: Path, key: str, place: int | None, content: bytes | str, message: str
) -> None:
    committed(tmp_path, kept=1)

    def entry_of(found: dict[str, Any]) -> Any:
        return found[key] if place is None else found[key][place]

    name = entry_of(manifest.read_manifest(tmp_path / "checkpoint" / LAST))["file"]
    held = read(tmp_path, content) if isinstance(content, str) else content
    forged(tmp_path, name, held, entry_of)
    with pytest.raises(CheckpointError, match=f"{name}: {message}") as caught:
        checkpoints(tmp_path).load(rounds=2)
    assert "\n" not in str(caught.value)


INDICES = [
    {"-1": [0, 1]}, {"x": [0, 1]}, {"01": [0, 1]}, {"0": [0, 99]}, {"0": [-1, 1]}, {"0": [1, 0]},
    {"0": [0.0, 1.0]}, {"0": ["0", "1"]}, {"0": [0]}, {"0": 3},
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES)
def test_an_index_of_states_that_leads_elsewhere_is_refused(
    tmp_path: Path, index: dict[str, Any]
) -> None:
    committed(tmp_path, kept=1)
    text = json.dumps({name: {"data_offsets": offsets} for name, offsets in index.items()}).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(9)
    forged(tmp_path, "states-000001.safetensors", content, lambda found: found["states"][0])
    with pytest.raises(CheckpointError, match="states-000001.safetensors: not a file of states: "):
        checkpoints(tmp_path).load(rounds=2)


def test_a_checkpoint_of_another_run_or_beyond_the_last_round_is_refused(tmp_path: Path) -> None:
    committed(tmp_path)
    with pytest.raises(CheckpointError, match=f"{LAST}: its seed is 7, this run's 8"):
        checkpoints(tmp_path, seed=8).load(rounds=2)
    with pytest.raises(CheckpointError, match="its config_sha256 is c0ffee, this run's decaf"):
        checkpoints(tmp_path, config="decaf").load(rounds=2)
    with pytest.raises(CheckpointError, match="rounds=1: .* is of round 2 already"):
        checkpoints(tmp_path).load(rounds=1)
