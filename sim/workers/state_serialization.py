"""A client's state as bytes: compact, exact, the same for equal states.

A frozen state is a safetensors file that anyone can open: the array `key` of the record `name` is
the tensor `name/key`, metric and config records are JSON in the file's metadata. No pickle.
"""

import json
import math
import struct
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from clients.messages.arrays import NUMPY, array_of, npy_header, record_of

RECORDS = "flower-records"
"""Key of the metadata under which a frozen state says what records it has, in their order."""

ALIGNMENT = 8
"""The safetensors format wants its buffer to begin at a multiple of this."""

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "uint64": "U64",
    "int32": "I32",
    "uint32": "U32",
    "int16": "I16",
    "uint16": "U16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""numpy's names of the types that safetensors has too, and its names."""

WIDTHS = {code: np.dtype(name).itemsize for name, code in DTYPES.items()}
NAMES = {code: name for name, code in DTYPES.items()}
MAX_AXES = 64
"""numpy's limit; an array that claims more has no header that `numpy.save` could have written."""

Tensor = tuple[str, str, tuple[int, ...], memoryview]
"""Name, safetensors' dtype, shape, bytes."""


# --- freezing ---


def freeze(state: RecordDict) -> bytes:
    """Turn a state into the bytes of a safetensors file.

    An array is stored as what it is if its data are those that `numpy.save` writes for its dtype
    and shape, so that `thaw` can write the 128 bytes before them again; any other (another
    serialisation, Fortran order, a dtype that safetensors lacks) as the bytes that it has.

    Written here, not by the library, which copies arrays twice: for 40 MB it takes 1.9 times as
    long as pickle, this 1.0 times (1.9 times for 0.03 MB in 8 arrays, 0.1 times for 4 MB in 40).

    Args:
        state: Any records of Flower's; it is not changed.

    Returns:
        The same bytes for equal states.
    """
    records: dict[str, Any] = {}
    tensors: list[Tensor] = []
    for name, record in state.items():
        if isinstance(record, ArrayRecord):
            odd = {}
            for key, array in record.items():
                code, shape, body = _tensor_of(array)
                if code is None:
                    odd[key] = [array.dtype, array.shape, array.stype]
                tensors.append((f"{_escaped(name)}/{key}", code or "U8", shape, body))
            records[name] = ["arrays", odd]
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            records[name] = [kind, {key: _to_json(value) for key, value in record.items()}]
    return _safetensors(tensors, json.dumps(records, allow_nan=False))


def _tensor_of(array: Array) -> tuple[str | None, tuple[int, ...], memoryview]:
    """Return safetensors' dtype, or None if only the raw bytes will do; shape; bytes."""
    data = array.data
    if (
        array.stype == NUMPY
        and len(array.shape) <= MAX_AXES
        and (code := DTYPES.get(array.dtype)) is not None
    ):
        dtype = np.dtype(array.dtype)
        head = npy_header(dtype, array.shape)
        size = len(head) + dtype.itemsize * math.prod(array.shape)
        if len(data) == size and data.startswith(head):
            return code, array.shape, memoryview(data)[len(head) :]
    return None, (len(data),), memoryview(data)


def _safetensors(tensors: list[Tensor], records: str) -> bytes:
    """Write the format: length of the header, header, buffer; the header keeps our order."""
    header: dict[str, Any] = {"__metadata__": {RECORDS: records}}
    header |= {tensor[0]: None for tensor in tensors}
    # Wide types first, or a byte before them would put them out of line.
    stored = sorted(tensors, key=lambda tensor: -WIDTHS[tensor[1]])
    end = 0
    for name, code, shape, body in stored:
        begin, end = end, end + len(body)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return b"".join((struct.pack("<Q", len(text)), text, *(body for *_, body in stored)))


def _escaped(name: str) -> str:
    """Free a record's name of "/", so that the first one ends it."""
    return name.replace("%", "%25").replace("/", "%2F")


def _to_json(value: Any) -> Any:
    """Say a value of a metric or config record in JSON; what JSON lacks becomes an object."""
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float64": struct.pack(">d", value).hex()}  # a NaN's sign and payload too
    return value


# --- thawing ---


def thaw(frozen: bytes) -> RecordDict:
    """Read what `freeze` wrote.

    Args:
        frozen: A frozen state.

    Returns:
        A new state, equal in every record, key, value, and in their order.

    Raises:
        ValueError: These are not the bytes of a frozen state.
    """
    try:
        return _thaw(memoryview(frozen))
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"not a frozen state: {type(error).__name__}: {error}") from error


def _thaw(frozen: memoryview) -> RecordDict:
    start = 8 + struct.unpack_from("<Q", frozen)[0]
    header = json.loads(bytes(frozen[8:start]))
    records = json.loads(header.pop("__metadata__")[RECORDS])
    body = frozen[start:]
    arrays: dict[str, dict[str, Array]] = {_escaped(name): {} for name in records}
    odd = {_escaped(name): content for name, (_, content) in records.items()}
    left = len(body)
    for path, about in header.items():
        name, _, key = path.partition("/")
        begin, end = about["data_offsets"]
        if not 0 <= begin <= end <= len(body):
            raise ValueError(f"array '{key}' ends at byte {end} of {len(body)}")
        arrays[name][key] = _array_of(about, body[begin:end], odd[name].get(key))
        left -= end - begin
    if left:
        raise ValueError(f"{left} of {len(body)} bytes belong to no array")
    return RecordDict(
        {
            name: _record_of(kind, content, arrays[_escaped(name)])
            for name, (kind, content) in records.items()
        }
    )


def _array_of(about: dict[str, Any], body: memoryview, odd: list[Any] | None) -> Array:
    if odd is not None:
        return array_of(odd[0], tuple(odd[1]), odd[2], bytes(body))
    dtype, shape = np.dtype(NAMES[about["dtype"]]), tuple(about["shape"])
    if len(body) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(body)} bytes for {dtype} of shape {shape}")
    return array_of(dtype.name, shape, NUMPY, b"".join((npy_header(dtype, shape), body)))


def _record_of(
    kind: str, content: dict[str, Any], arrays: dict[str, Array]
) -> ArrayRecord | MetricRecord | ConfigRecord:
    if kind == "arrays":
        return record_of(arrays)
    values: Any = {key: _from_json(value) for key, value in content.items()}
    if kind == "metrics":
        return MetricRecord(values)
    if kind == "config":
        return ConfigRecord(values)
    raise ValueError(f"records of kind '{kind}'")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        ((how, text),) = value.items()
        return b64decode(text) if how == "base64" else struct.unpack(">d", bytes.fromhex(text))[0]
    return value
