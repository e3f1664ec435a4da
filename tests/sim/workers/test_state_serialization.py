"""Frozen states come back byte for byte."""

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from safetensors.numpy import load

from sim.workers.state_serialization import DTYPES, freeze, thaw

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
