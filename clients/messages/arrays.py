"""Between numpy arrays and Flower's records, without a copy too many."""

import io
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from clients.models.factory import Parameters

NUMPY = "numpy.ndarray"
"""Flower's name for an array stored as `np.save` does."""

PLAIN = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
"""Names of the dtypes whose values are numbers that every machine reads alike."""


def write_arrays(arrays: Parameters) -> ArrayRecord:
    """Wrap named numpy arrays into a Flower record."""
    return record_of({name: _write(np.asarray(value)) for name, value in arrays.items()})


def read_arrays(record: ArrayRecord) -> Parameters:
    """Unwrap a Flower record into named numpy arrays; they are read only and share its memory."""
    return {name: _read(array) for name, array in record.items()}


def summable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array whose weighted sums stay finite: half precision ends at 65504."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def is_float(dtype: npt.DTypeLike) -> bool:
    """Tell whether a dtype is of floats: what is averaged, unlike counts."""
    return bool(np.issubdtype(dtype, np.floating))


def _write(value: npt.NDArray[Any]) -> Array:
    if value.dtype.hasobject:
        raise TypeError(f"an array of dtype {value.dtype} cannot be sent")
    body = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    header = npy_header(value.dtype, value.shape)
    return array_of(str(value.dtype), value.shape, NUMPY, b"".join((header, body.data)))


def _read(array: Array) -> npt.NDArray[Any]:
    """Read what `_write` wrote in 1.4 us, where `Array.numpy` takes 26; anything else by that."""
    try:
        dtype, shape = np.dtype(array.dtype), tuple(array.shape)
        header = npy_header(dtype, shape)
    except (TypeError, ValueError):  # a dtype or shape that only the one who wrote it knows
        return array.numpy()
    if array.stype != NUMPY or not array.data.startswith(header):
        return array.numpy()
    if len(array.data) != len(header) + prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of {shape} {dtype} has {len(array.data)} bytes")
    return np.frombuffer(array.data, dtype, offset=len(header)).reshape(shape)


# --- what Flower's own constructors do, less the sorting out of their arguments ---


def array_of(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> Array:
    """Make an array of a record; 0.6 us, Flower's `Array(...)` takes 5.9."""
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Make a record of arrays, which `ArrayRecord(arrays)` would make anew one by one."""
    record = ArrayRecord()
    record.update(arrays)
    return record


@lru_cache(maxsize=4096)
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what `np.save` writes before the data of a C-contiguous array."""
    buffer = io.BytesIO()
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()
