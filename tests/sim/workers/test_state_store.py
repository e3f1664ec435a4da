"""Frozen states come back byte for byte; the store keeps its limit and loses nothing."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from safetensors.numpy import load

from sim.workers.frozen_states import DTYPES, freeze, thaw
from sim.workers.state_store import StateStore

# --- what states there can be ---

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
metrics = numbers | st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.floats())
configs = (
    metrics
    | st.booleans()
    | st.text()
    | st.binary()
    | st.lists(st.booleans())
    | st.lists(st.text())
    | st.lists(st.binary())
)
shapes = stn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
dtypes = st.sampled_from([*DTYPES, "complex64", ">f4", "<U3", "datetime64[s]"])
true_arrays = dtypes.flatmap(lambda dtype: stn.arrays(dtype, shapes)).map(Array)
false_arrays = st.builds(
    Array,
    dtype=st.sampled_from(["float32", "bfloat16", ""]),
    shape=st.lists(st.integers(-1, 5), max_size=3).map(tuple),
    stype=st.sampled_from(["numpy.ndarray", "torch.Tensor"]),
    data=st.binary(max_size=200),
)
names = st.text(max_size=5) | st.text("/%2F", max_size=4)
records = (
    st.dictionaries(names, true_arrays | false_arrays, max_size=4).map(ArrayRecord)
    | st.dictionaries(names, metrics, max_size=4).map(MetricRecord)
    | st.dictionaries(names, configs, max_size=4).map(ConfigRecord)
)
states = st.dictionaries(names, records, max_size=4).map(RecordDict)


def exactly(value: Any) -> Any:
    """Turn a value into one whose equality is that of type and bits."""
    if isinstance(value, RecordDict | ArrayRecord | MetricRecord | ConfigRecord):
        return type(value), [(key, exactly(item)) for key, item in value.items()]
    if isinstance(value, Array):
        return value.dtype, value.shape, value.stype, value.data
    if isinstance(value, list):
        return [exactly(item) for item in value]
    return type(value), struct.pack(">d", value) if isinstance(value, float) else value


def arrays_record(**arrays: Any) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


# --- freezing and thawing ---


@settings(max_examples=300, deadline=None)
@given(states)
def test_a_thawed_state_is_the_frozen_one_to_the_bit_and_in_order(state: RecordDict) -> None:
    before = exactly(state)
    frozen = freeze(state)
    assert exactly(state) == before
    assert exactly(thaw(frozen)) == before
    assert freeze(thaw(frozen)) == frozen
    safetensors.deserialize(frozen)  # the library finds it well-formed


def test_infinities_both_zeros_and_every_nan_keep_their_bits() -> None:
    odd = struct.unpack(">d", bytes.fromhex("fff80000deadbeef"))[0]
    values = [math.nan, odd, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7976931348623157e308]
    state = RecordDict({"m": MetricRecord({"all": values, "one": odd})})
    thawed = thaw(freeze(state)).metric_records["m"]
    bits = [struct.pack(">d", value).hex() for value in thawed["all"]]
    assert bits == [struct.pack(">d", value).hex() for value in values]
    assert struct.pack(">d", thawed["one"]).hex() == "fff80000deadbeef"


def test_a_frozen_model_is_a_safetensors_file_that_others_can_read() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = RecordDict({"model": arrays_record(flags=[True], steps=3, weights=weights)})
    opened = load(freeze(state))
    assert set(opened) == {"model/flags", "model/steps", "model/weights"}
    assert opened["model/weights"].dtype == np.float32
    np.testing.assert_array_equal(opened["model/weights"], weights)
    assert (opened["model/steps"], opened["model/steps"].shape) == (3, ())


def test_wide_types_are_stored_first_so_that_all_are_in_line() -> None:
    record = arrays_record(a=np.zeros(3, np.uint8), b=np.zeros(5, np.float64), c=np.float16(1))
    frozen = freeze(RecordDict({"r": record}))
    size = struct.unpack_from("<Q", frozen)[0]
    header = json.loads(frozen[8 : 8 + size])
    assert size % 8 == 0
    begins = {name: tensor["data_offsets"][0] for name, tensor in header.items() if "/" in name}
    assert begins == {"r/b": 0, "r/c": 40, "r/a": 42}
    assert list(thaw(frozen).array_records["r"]) == ["a", "b", "c"]


def test_records_whose_names_hold_slashes_are_told_apart() -> None:
    state = RecordDict(
        {"a": arrays_record(**{"b/c": 1}), "a/b": arrays_record(c=2), "a%2Fb": arrays_record(c=3)}
    )
    assert exactly(thaw(freeze(state))) == exactly(state)


def test_arrays_as_numpy_saves_them_lose_their_headers_and_others_nothing() -> None:
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    fortran = Array(np.asfortranarray(plain))
    torch_like = Array("bfloat16", (2,), "torch.Tensor", b"\x80\x3f\x00\x40")
    state = RecordDict({"r": ArrayRecord({"p": Array(plain), "f": fortran, "t": torch_like})})
    tensors = dict(safetensors.deserialize(freeze(state)))
    sizes = {name: len(tensor["data"]) for name, tensor in tensors.items()}
    assert sizes == {"r/p": 48, "r/f": 48 + 128, "r/t": 4}
    assert exactly(thaw(freeze(state))) == exactly(state)


def test_a_network_is_the_same_network_again() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    state = RecordDict({"model": ArrayRecord(model.state_dict())})
    again = thaw(freeze(state)).array_records["model"].to_torch_state_dict()
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_a_frozen_state_is_smaller_than_its_pickle_and_thawing_shares_nothing() -> None:
    import pickle

    state = RecordDict({"m": arrays_record(w=np.zeros(10, np.float32))})
    state["list"] = ConfigRecord({"seen": [1, 2]})
    frozen = freeze(state)
    assert len(frozen) < len(pickle.dumps(state))
    first = thaw(frozen)
    first.config_records["list"]["seen"].append(3)
    assert thaw(frozen).config_records["list"]["seen"] == [1, 2]


def damaged() -> Iterator[tuple[str, bytes]]:
    good = freeze(RecordDict({"r": arrays_record(w=np.zeros(4, np.float32))}))
    size = 8 + struct.unpack_from("<Q", good)[0]
    yield "empty", b""
    yield "seven bytes", good[:7]
    yield "cut in the header", good[: size - 20]
    yield "cut in the arrays", good[:-1]
    yield "longer", good + b"x"
    yield "another safetensors", safetensors.serialize({}, metadata={"format": "pt"})
    yield "a pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os"
    yield "a wrong shape", good.replace(b'"shape":[4]', b'"shape":[5]')
    yield "a wrong dtype", good.replace(b'"F32"', b'"F64"')
    yield "an unknown record", good.replace(b'"r/w"', b'"s/w"')
    yield "an unknown kind", good.replace(b"arrays", b"widget")
    yield "bytes beyond the end", good.replace(b"[0,16]", b"[0,99]")
    yield "no JSON object", struct.pack("<Q", 8) + b"[1,2,3] "


@pytest.mark.parametrize("frozen", dict(damaged()).values(), ids=dict(damaged()))
def test_what_is_no_frozen_state_is_refused(frozen: bytes) -> None:
    with pytest.raises(ValueError, match="not a frozen state: "):
        thaw(frozen)


# --- the store ---


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
