"""What can be wrong with a client's answer: one seeded change of an honest one.

By generic rules over records, arrays, numbers, texts, messages, exceptions and states, not by cases
that somebody once met.
"""

import struct
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from tests.odd_errors import RAISED, Ending, Unbound

KINDS = (ArrayRecord, MetricRecord, ConfigRecord)
NAMES = ("arrays", "metrics", "config", "predictions", "features", "sums", "probe", "spread",
         "mean-weights", "mean/mlp", "mixed", "x", "", "\ud800", "a\nb", "n" * 999)  # fmt: skip
KEYS = ("num-examples", "train-loss", "push-weight", "digest-loss", "count", "client", "round",
        "w", "client-id", "architecture", "", "\udcff", "line\nbreak", "k" * 5000)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    *(float("nan"), float("inf"), -float("inf"), 1.7e308, -1.7e308, 1e30, 3e38, 1e15, 1e16),
    *(1e-300, 5e-324, 0.5, 0, 0.0, -0.0, -1, 1, 1.0, 2.5, 10**12, 10**13, 2**63, -(2**64), 10**400),
    *(True, False, np.float64(3), np.float32(3), np.int64(3), None, "x", "", b"x", b"", 1j),
    *([], [1.0], [1, 2, 3], [float("nan")], [10**400], [True], ["x"], [[1.0]], (1.0,), {"a": 1}),
)
TEXTS: tuple[Any, ...] = (
    *("", "x", "\ud800", "a\nb", "t" * 10**6, b"", b"\x00" * 10**5, [], [""], ["a", "b"], [b""]),
    *(True, False, [True], 0, -1, 1.0, float("nan"), 2**63, 10**400, 10**5000, [10**5000], None),
)
DTYPES = ("complex64", "complex128", "U1", "S3", "datetime64[s]", "timedelta64[s]", "bool", "int8",
          "int32", "int64", "uint8", "uint64", "float16", "float64", "longdouble", ">f4", ">i8",
          [("a", "f4")], "V4")  # fmt: skip
SIZES = (float("nan"), float("inf"), -float("inf"), 3.3e38, -3.3e38, 1e31, 1e30, 1e16, 1e15, 1e9,
         1e-45, 0.0, -1.0, 1e-30)  # fmt: skip


def change(answer: Message, request: Message, context: Context, draw: Random) -> tuple[str, Any]:
    """Change an honest answer by one rule, drawn; say which. What is raised is returned."""
    rule = draw.choice(RULES)
    return rule.__name__, rule(answer, request, context, draw)


# --- arrays ---


def raw(values: Any, **about: Any) -> Array:
    """Wrap what Flower would not, and say of it what is not true."""
    if isinstance(values, bytes):
        about = {"dtype": "float32", "shape": (1,), "stype": "numpy.ndarray"} | about
        return made(data=values, **about)
    values = np.asarray(values)
    if values.dtype.hasobject:
        return made(str(values.dtype), values.shape, "numpy.ndarray", b"\x93NUMPY")
    from io import BytesIO

    np.save(body := BytesIO(), values, allow_pickle=False)
    known = {"dtype": str(values.dtype), "shape": values.shape, "stype": "numpy.ndarray"}
    return made(**(known | {"data": body.getvalue()} | about))


def made(dtype: Any, shape: Any, stype: Any, data: Any) -> Array:
    array = Array.__new__(Array)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def some_array(answer: Message, draw: Random) -> tuple[ArrayRecord, list[str]] | None:
    """Draw a record of arrays, and some of its keys."""
    records = [r for r in answer.content.values() if isinstance(r, ArrayRecord) and len(r)]
    if not records:
        return None
    record = draw.choice(records)
    keys = list(record)
    return record, keys if draw.random() < 0.3 else [draw.choice(keys)]


def values_of(array: Array) -> Any:
    return np.array(array.numpy())


def other_type(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    found, dtype = some_array(answer, draw), draw.choice(DTYPES)
    for key in found[1] if found else ():
        values = values_of(found[0][key]) if found else None
        try:
            cast = values.astype(dtype)
        except (TypeError, ValueError):
            cast = np.zeros(values.shape, dtype)
        found[0][key] = raw(cast)  # type: ignore[index]
    return answer


def other_values(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    found, size, everywhere = some_array(answer, draw), draw.choice(SIZES), draw.random() < 0.5
    for key in found[1] if found else ():
        values = values_of(found[0][key])  # type: ignore[index]
        if values.size == 0 or values.dtype.kind not in "fiu":
            continue
        with np.errstate(all="ignore"):
            if values.dtype.kind != "f":
                size = draw.choice((0, -1, 2**31 - 1, 2**62))
                new = np.array(size, dtype=object).astype(np.int64).astype(values.dtype)
            else:
                new = np.array(size).astype(values.dtype)
        if everywhere:
            values[...] = new
        else:
            values.flat[draw.randrange(values.size)] = new
        found[0][key] = raw(values)  # type: ignore[index]
    return answer


def other_shape(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    shapes: tuple[Callable[[Any], Any], ...] = (
        np.transpose, np.ravel, lambda a: a[None], lambda a: a[..., None], lambda a: a[:0],
        lambda a: a.reshape(-1)[:1].reshape(()) if a.size else a, lambda a: a.reshape(-1)[:-1],
        lambda a: np.concatenate([a.reshape(-1)] * 2), lambda a: np.asfortranarray(a),
        lambda a: np.zeros((1,) * 64), lambda a: np.zeros((0, 10**6)), lambda a: a[None] * 1,
    )  # fmt: skip
    found, shape = some_array(answer, draw), draw.choice(shapes)
    for key in found[1] if found else ():
        found[0][key] = raw(shape(np.atleast_1d(values_of(found[0][key]))))  # type: ignore[index]
    return answer


def lying_header(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    if (found := some_array(answer, draw)) is None:
        return answer
    record, keys = found
    honest = record[keys[0]]
    magic = b"\x93NUMPY\x01\x00"
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    lies: tuple[dict[str, Any], ...] = (
        {"dtype": "float64"}, {"dtype": "int32"}, {"dtype": "nonsense"}, {"dtype": ""},
        {"dtype": None}, {"dtype": "O"}, {"shape": ()}, {"shape": (10**12,)}, {"shape": (-1,)},
        {"shape": (2.5,)}, {"shape": None}, {"shape": "ab"}, {"shape": (1,) * 99},
        {"shape": [*honest.shape, 1]}, {"stype": "pickle"}, {"stype": "torch"}, {"stype": None},
        {"data": b""}, {"data": honest.data[:-3]}, {"data": honest.data + b"more"},
        {"data": b"no array at all"}, {"data": b"PK\x03\x04"}, {"data": None}, {"data": "text"},
        {"data": magic + struct.pack("<H", len(head)) + head}, {"data": honest.data[:9]},
    )  # fmt: skip
    known = {name: getattr(honest, name) for name in ("dtype", "shape", "stype", "data")}
    record[keys[0]] = made(**(known | draw.choice(lies)))
    return answer


def other_keys(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    """Drop, rename, add or reorder the keys of any record."""
    if not answer.content:
        return answer
    record: Any = draw.choice(list(answer.content.values()))
    items, how = dict(record.items()), draw.randrange(4)
    if items and how == 0:
        del items[draw.choice(list(items))]
    elif items and how == 1:
        items[draw.choice(KEYS)] = items.pop(draw.choice(list(items)))
    elif how == 2:
        new: Any = raw(np.ones(2, np.float32)) if isinstance(record, ArrayRecord) else 1
        items[draw.choice(KEYS)] = draw.choice(list(items.values())) if items else new
    else:
        items = dict(draw.sample(list(items.items()), len(items)))
    record.__dict__["_data"].clear()
    record.__dict__["_data"].update(items)
    return answer


# --- numbers and texts ---


def other_number(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    return put(answer, MetricRecord, NUMBERS, draw)


def other_text(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    return put(answer, ConfigRecord, TEXTS, draw)


def put(answer: Message, kind: type, values: tuple[Any, ...], draw: Random) -> Any:
    """Put a value past Flower's own checks."""
    records = [r for r in answer.content.values() if isinstance(r, kind)]
    if not records:
        name = draw.choice(("note", "metrics", "config"))
        if name in answer.content:
            return answer
        records = [kind()]
        answer.content[name] = records[0]
    data = draw.choice(records).__dict__["_data"]
    key = draw.choice((*data, *data, *KEYS[:4])) if data else draw.choice(KEYS)
    data[key] = draw.choice(values)
    return answer


# --- records and messages ---


def other_records(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    content, how = answer.content, draw.randrange(6)
    name = draw.choice(list(content)) if content else ""
    honest = raw(np.ones(2, np.float32))
    fresh: list[Any] = [
        ArrayRecord({"w": honest}), ArrayRecord(), MetricRecord({"num-examples": 3}),
        MetricRecord({"count": 5.0, "squares": 1.0}), MetricRecord(), ConfigRecord({"a": "b"}),
        ConfigRecord(), MetricRecord({"mlp": 1e12, "logistic_regression": 1e12}),
    ]  # fmt: skip
    if how == 0:
        content.pop(name, None)
    elif how == 1 and name:
        content[draw.choice(NAMES)] = content.pop(name)
    elif how == 2 and name:
        content[name] = draw.choice(fresh)
    elif how == 3:
        content[draw.choice(NAMES)] = draw.choice(fresh)
    elif how == 4 and name:  # the same keys in a record of another kind
        new: Any = draw.choice(KINDS)()
        new.__dict__["_data"].update(content[name].items())
        content[name] = new
    else:
        for each in list(content):
            del content[each]
    return answer


def other_message(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    def with_metadata(name: str, value: Any) -> Message:
        answer.metadata.__dict__[f"_{name}"] = value
        return answer

    def with_content(value: Any) -> Message:
        answer.__dict__["_content"] = value
        return answer

    errors = (Error(17), Error(0, ""), Error(1, "r" * 10**6), Error(2, "\ud800\nx"))
    ways: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: request, lambda: {}, lambda: "text", lambda: Message, lambda: 3,
        lambda: answer.content, lambda: ValueError("handed over"), lambda: iter([answer]),
        lambda: with_metadata("src_node_id", 1), lambda: with_metadata("src_node_id", 10**9 + 1),
        lambda: with_metadata("reply_to_message_id", "1-0-7"), lambda: with_content(None),
        lambda: with_metadata("message_type", "train.nonsense"), lambda: with_content({}),
        lambda: with_content("text"), lambda: with_metadata("group_id", "g" * 10**6),
        lambda: with_content(RecordDict()), lambda: with_content(request.content),
        Unbound, lambda: with_content(RecordDict({"metrics": Ending({"num-examples": 3})})),
        *(lambda e=e: Message(e, reply_to=request) for e in errors),
    )  # fmt: skip
    return draw.choice(ways)()


def exception(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    return draw.choice(RAISED)()


def other_state(answer: Message, request: Message, context: Context, draw: Random) -> Any:
    """Leave oddities in the state, and answer honestly."""
    what: tuple[Any, ...] = (
        ConfigRecord({"a": ""}), ConfigRecord({"a": []}), MetricRecord({"v": []}),
        ArrayRecord({"a": raw(np.zeros(3), dtype="nonsense")}), ConfigRecord({"a": 10**4000}),
        ArrayRecord({"a": raw(np.full(3, np.nan))}), ArrayRecord({"a": raw(np.zeros(3, ">f4"))}),
    )  # fmt: skip
    if draw.random() < 0.1:
        context.state = draw.choice((None, {}, "text"))
    else:
        context.state[draw.choice(("x", "a/b", "%2F", "\ud800"))] = draw.choice(what)
    return answer


RULES = (
    other_type, other_values, other_values, other_shape, lying_header, other_keys, other_number,
    other_number, other_text, other_records, other_message, exception, other_state,
)  # fmt: skip
