"""What a client's answer is worth: all that lies between the answer and the sum is judged here."""

import traceback
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from clients.messages.accumulator import Fault, Intake
from clients.messages.arrays import record_of
from clients.messages.requests import NOTES
from clients.messages.sizes import size_bytes
from sim.workers.tasks import NOTE, Answer, Task

MAX_REASON, MAX_TRACEBACK = 500, 20_000
"""Characters of what is kept of a failure; a client may raise, or send, a text of any length."""


def judged(
    task: Task,
    request: Message,
    item: Any,
    intake: Intake,
    screen: Fault,
    decode: Fault | None = None,
) -> Answer:
    """Judge what a client returned or raised.

    Args:
        task: Whose it is.
        request: What the client was asked.
        item: Anything.
        intake: Says, beside the screen, which replies are of use.
        screen: (request, reply) -> why the reply is of no use, or None.
        decode: (request, reply) -> why what a codec has made of the reply cannot be undone in it,
            or None: it is, and bytes are those of what was sent. None = nothing is encoded.

    Returns:
        The reply, of which only the content is the client's; or why there is none. An interrupt of
        the user's that comes meanwhile is to be raised again: `heard_signals` tells.
    """
    try:
        if isinstance(item, BaseException):
            return raised(task, item)
        if not isinstance(item, Message):
            what = _name(item)
            return raised(task, TypeError(f"the ClientApp returned {what}, expected a Message"))
        if decode is None or not item.has_content():
            return _judged(task, request, item, intake, screen)
        sent = _size(item)
        if reason := decode(request, item):
            return _refused(task, reason, sent)
        return replace(_judged(task, request, item, intake, screen), reply_bytes=sent)
    except BaseException as error:  # to look at it runs code of its own, which can raise anything
        return _refused(task, f"cannot be read: {_said(error)}")


def raised(task: Task, error: BaseException) -> Answer:
    """Say of a client that it failed by raising this."""
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException:  # its text, or its type's, is code too
        trace = ""
    return Answer(
        task.client_id, None, failure=_line(_said(error)), raised=True, traceback=_clean(trace)
    )


def scalars_of(content: RecordDict) -> dict[str, float]:
    """Collect all single numbers of a reply's metric records, and what it notes as `note.NAME`."""
    # Not content.metric_records: it refers to the content and back, and megabytes of answers would
    # wait for the garbage collector.
    return {
        key if isinstance(record, MetricRecord) else f"{NOTE}{key}": float(value)
        for name, record in content.items()
        if isinstance(record, MetricRecord) or name == NOTES
        for key, value in record.items()
        if isinstance(value, int | float)
    }


# --- steps ---


def _judged(task: Task, request: Message, item: Message, intake: Intake, screen: Fault) -> Answer:
    if item.has_error():
        return _refused(task, str(item.error.reason or f"error {item.error.code}"))
    if not item.has_content():
        return _refused(task, "has neither content nor an error")
    failure = screen(request, item)
    fault = None if intake is None else intake.fault
    if fault is not None and not failure:
        failure = fault(request, item)
    if failure:
        return _refused(task, failure, _size(item))
    _put_in_order(item.content, request.content)
    return Answer(
        client_id=task.client_id,
        # Made anew: of whose it is, and what it answers, nothing is left to the client.
        reply=Message(item.content, reply_to=request),
        reply_bytes=size_bytes(item.content),
        metrics=scalars_of(item.content),
    )


def _put_in_order(content: RecordDict, sent: RecordDict) -> None:
    """Give arrays the order in which they were sent: some of Flower's strategies go by places."""
    for name, record in content.items():
        like = sent.get(name)
        if not isinstance(record, ArrayRecord) or not isinstance(like, ArrayRecord):
            continue
        if [*record] != [*like] and set(record) == set(like):
            content[name] = record_of({key: record[key] for key in like})


def _refused(task: Task, failure: str, reply_bytes: int = 0) -> Answer:
    return Answer(task.client_id, None, reply_bytes=reply_bytes, failure=_line(failure))


def _size(item: Message) -> int:
    """Measure a reply that was refused; 0 if that cannot be done."""
    try:
        return size_bytes(item.content)
    except Exception:  # it was refused for what it holds
        return 0


def _said(error: BaseException) -> str:
    """Name an exception and its first line, whatever its text does."""
    try:
        text = str.__str__(str(error)).strip()  # which may be of a type that strips otherwise
    except BaseException:
        text = "its text cannot be read"
    return f"{_name(error)}: {(text.splitlines() or [''])[0]}".removesuffix(": ")


def _name(item: Any) -> str:
    """Name a type, past what its own type does when it is asked."""
    return str.__str__(type.__dict__["__name__"].__get__(type(item)))


def _line(text: str) -> str:
    """Cut a reason to a line that every file of a run folder can hold."""
    first = (_clean(text).strip().splitlines() or ["says nothing"])[0]
    return first if len(first) <= MAX_REASON else f"{first[:MAX_REASON]} ... ({len(first)} in all)"


def _clean(text: str) -> str:
    """Free a text of what UTF-8 lacks, and of all but its end where it is enormous."""
    text = str.__str__(text)  # a client's may be of a type of its own
    cut = text if len(text) <= MAX_TRACEBACK else f"... {text[-MAX_TRACEBACK:]}"
    return cut.encode("utf-8", "replace").decode()
