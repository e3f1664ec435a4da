"""The store of states keeps its limit and loses nothing."""

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sim.workers.state_store import StateStore


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_least_recently_used_states_go_to_disk_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "spilled"
    store = StateStore(folder, memory_limit_bytes=6)
    store[1], store[2], store[3] = b"one", b"two", b"six"
    assert (files_in(folder), store.memory_bytes) == (["1.safetensors"], 6)
    assert (folder / "1.safetensors").read_bytes() == b"one"
    assert store[2] == b"two"  # now 3 is the oldest
    store[4] = b"nil"
    assert files_in(folder) == ["1.safetensors", "3.safetensors"]
    assert {key: store[key] for key in store} == {1: b"one", 2: b"two", 3: b"six", 4: b"nil"}
    assert (len(store), store.memory_bytes) == (4, 6)
    store.close()
    assert (len(store), folder.exists()) == (0, False)


def test_a_state_that_was_read_back_is_not_written_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "spilled", memory_limit_bytes=3)
    store[1], store[2] = b"one", b"two"
    file = tmp_path / "spilled" / "1.safetensors"
    written = file.stat().st_mtime_ns
    assert (store[1], store[2], store[1]) == (b"one", b"two", b"one")
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("limit", [0, 2])
def test_a_state_larger_than_the_limit_lives_on_disk(tmp_path: Path, limit: int) -> None:
    store = StateStore(tmp_path / "spilled", limit)
    store[7] = b"long"
    assert (store[7], store.memory_bytes) == (b"long", 0)
    store[7] = b"longer"
    assert (store[7], len(store)) == (b"longer", 1)


def test_nothing_touches_the_disk_below_the_limit(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "spilled", memory_limit_bytes=100)
    store[1] = b"one"
    store[1] = b"uno"
    assert (store[1], store.memory_bytes) == (b"uno", 3)
    store.close()
    assert not (tmp_path / "spilled").exists()


def test_somebody_elses_files_are_read_when_asked_for_and_never_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "5-000002.safetensors"
    theirs.write_bytes(b"five")
    store = StateStore(tmp_path / "spilled", memory_limit_bytes=4)
    store.refer(5, theirs, 4)
    store.refer(6, tmp_path / "not yet there", 4)
    assert (5 in store, len(store), store.memory_bytes) == (True, 2, 0)
    assert store[5] == b"five"
    store[5] = b"cinq"
    store[7] = b"sept"
    assert (store[5], theirs.read_bytes()) == (b"cinq", b"five")
    store.close()
    assert theirs.exists()


def test_what_a_killed_run_left_in_the_stores_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "3.safetensors").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    store = StateStore(tmp_path, memory_limit_bytes=0)
    assert 3 not in store
    assert files_in(tmp_path) == ["notes.txt"]
    store.close()
    assert files_in(tmp_path) == ["notes.txt"]


def test_errors_name_client_and_file(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "spilled", memory_limit_bytes=0)
    store[3] = b"three"
    file = tmp_path / "spilled" / "3.safetensors"
    file.write_bytes(b"thr")
    with pytest.raises(ValueError, match=f"client 3: its state {file} has 3 bytes, expected 5"):
        store[3]
    file.unlink()
    with pytest.raises(OSError, match=f"client 3: cannot read its state {file}: "):
        store[3]
    in_the_way = tmp_path / "spilled" / "4.safetensors"
    in_the_way.mkdir()
    with pytest.raises(OSError, match=f"client 4: cannot spill its state to {in_the_way}: "):
        store[4] = b"four"
    assert store[4] == b"four"
    with pytest.raises(KeyError):
        store[5]
    with pytest.raises(KeyError):
        del store[5]
    with pytest.raises(ValueError, match="memory_limit_bytes=-1: expected >= 0"):
        StateStore(tmp_path, -1)


class StoreIsADict(RuleBasedStateMachine):
    """Whatever is done to it, the store holds what a dict would, within its limit."""

    def __init__(self) -> None:
        super().__init__()
        from tempfile import TemporaryDirectory

        self.folder = TemporaryDirectory()
        self.store = StateStore(Path(self.folder.name) / "spilled", memory_limit_bytes=10)
        self.model: dict[int, bytes] = {}

    @rule(key=st.integers(0, 4), value=st.binary(max_size=12))
    def put(self, key: int, value: bytes) -> None:
        self.store[key] = self.model[key] = value

    @rule(key=st.integers(0, 4))
    def get(self, key: int) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(key=st.integers(0, 4))
    def drop(self, key: int) -> None:
        assert self.store.pop(key, None) == self.model.pop(key, None)

    @invariant()
    def same_keys_within_the_limit(self) -> None:
        assert set(self.store) == set(self.model)
        assert len(self.store) == len(self.model)
        assert self.store.memory_bytes <= 10

    def teardown(self) -> None:
        assert dict(self.store) == self.model
        self.store.close()
        assert files_in(Path(self.folder.name)) == []
        self.folder.cleanup()


TestStoreIsADict = StoreIsADict.TestCase
TestStoreIsADict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
