"""Arrays to Flower's records and back."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis.extra import numpy as arrays

from clients.messages.arrays import read_arrays, write_arrays

ANY = arrays.arrays(
    arrays.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufcSU" and dtype.itemsize),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(ANY)
def test_written_as_flower_writes_and_read_as_it_was(array: np.ndarray) -> None:
    record = write_arrays({"a": array})
    theirs = Array(array)
    assert (record["a"].dtype, tuple(record["a"].shape)) == (theirs.dtype, tuple(theirs.shape))
    assert record["a"].numpy().tobytes() == theirs.numpy().tobytes()
    for given_record in (record, ArrayRecord({"a": theirs})):
        read = read_arrays(given_record)["a"]
        assert read.dtype == array.dtype
        assert read.shape == array.shape
        assert read.tobytes() == array.tobytes()


def test_strided_arrays_are_sent_in_their_order() -> None:
    array = np.arange(12).reshape(3, 4).T[::-1]
    np.testing.assert_array_equal(read_arrays(write_arrays({"a": array}))["a"], array)
    fortran = Array(np.asfortranarray(np.arange(6.0).reshape(2, 3)))  # a header of its own
    read = read_arrays(ArrayRecord({"a": fortran}))["a"]
    np.testing.assert_array_equal(read, [[0, 1, 2], [3, 4, 5]])


def test_nobody_changes_what_was_sent() -> None:
    read = read_arrays(write_arrays({"a": np.zeros(3)}))["a"]
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1


@pytest.mark.parametrize("cut", [1, 8, 200])
def test_a_truncated_array_is_an_error(cut: int) -> None:
    whole = write_arrays({"a": np.ones(16)})["a"]
    damaged = Array(whole.dtype, whole.shape, whole.stype, whole.data[:-cut])
    with pytest.raises(Exception, match=r".+"):
        read_arrays(ArrayRecord({"a": damaged}))


def test_objects_are_not_sent() -> None:
    with pytest.raises(TypeError, match="dtype object"):
        write_arrays({"a": np.array([object()])})
