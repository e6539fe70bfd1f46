"""Histories: what every client called, what it was answered, and when; kept as JSON lines.

A history is a list of operations, in any order. Each has the time of its call and of its return, on one clock that
never goes back (milliseconds or ticks), and an outcome:

``ok``
    It returned, with an output. It took effect at one moment between call and return.
``fail``
    It is known not to have taken effect: refused, or answered with an error that says so. It is left out of every
    check, and whoever saw its effect all the same has seen a violation.
``unknown``
    The outcome was never learned (a time-out, a broken connection). It may take effect at any moment after its call,
    long after its client gave up too, or never. It stays open for ever: a time of return, if there is one, only says
    when the client stopped waiting.

The file has one JSON object a line::

    {"process": 3, "op": "put", "key": "k1", "input": "a", "output": null,
     "call": 12.5, "return": 13.25, "status": "ok"}

**Bytes** are written as text where they are UTF-8, else as ``{"base64": "/wA="}``. Text comes back as text, base64 as
bytes: one history writes a value in one way only, so equal values stay equal and different ones different, unless
the history mixes the text "a" and the bytes ``b"a"``. An object with the single member ``base64`` is reserved for this.
Arrays come back as tuples, so that a value can be part of a hashable state.

Empty lines are skipped. A line that cannot be read is a :class:`~paxos_rsm.errors.HistoryError` that names it.
"""

import base64
import binascii
import json
import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from paxos_rsm.errors import HistoryError

__all__ = [
    "Operation",
    "Recorder",
    "Status",
    "freeze",
    "operation_from_json",
    "operation_to_json",
    "read_history",
    "validate",
    "write_history",
]

Status = Literal["ok", "fail", "unknown"]

STATUSES = ("ok", "fail", "unknown")
FIELDS = ("process", "op", "key", "input", "output", "call", "return", "status")
REQUIRED = ("process", "op", "call", "status")
SHOWN_MAX = 60
"""Characters of a value that a message repeats."""


@dataclass(slots=True)
class Operation:
    """One operation of one client.

    Invariant (checked by :func:`validate`): ``ok`` has a return, and no return is before its call.
    """

    process: int | str
    """Who called it: a client, a thread. Two operations of one process may overlap."""
    op: str
    """What was called, in the words of the model: read, write, put, acquire."""
    key: Any = None
    """What it was called on: part of the state that is independent of the other keys."""
    input: Any = None
    output: Any = None
    """What was answered; of no meaning unless the status is ok."""
    call: float = 0.0
    return_: float | None = None
    """``return`` in JSON; None is open for ever."""
    status: Status = "ok"


@dataclass(slots=True)
class Recorder:
    """Records a history as it happens: :meth:`call`, and then one of :meth:`ok`, :meth:`fail`, :meth:`unknown`.

    An operation that gets none of them stands as unknown, which is what it is when the recording process dies.
    ``clock`` tells milliseconds or ticks, and never goes back. Take the time of the call *before* the request leaves
    and that of the return *after* the reply came: a wider bar is sound, a narrower one accuses the innocent.
    """

    clock: Callable[[], float]
    operations: list[Operation] = field(default_factory=list)

    def call(self, process: int | str, op: str, key: Any = None, input: Any = None) -> Operation:
        """Notes a call, now."""
        operation = Operation(process, op, key, input, None, self.clock(), None, "unknown")
        self.operations.append(operation)
        return operation

    def ok(self, operation: Operation, output: Any = None) -> None:
        """It returned, now, with this output."""
        operation.output = output
        operation.return_ = self.clock()
        operation.status = "ok"

    def fail(self, operation: Operation) -> None:
        """It is known not to have taken effect."""
        operation.return_ = self.clock()
        operation.status = "fail"

    def unknown(self, operation: Operation) -> None:
        """The client gave up; it may still take effect."""
        operation.status = "unknown"


def freeze(value: Any) -> Hashable:
    """``value`` as something hashable that is equal only where ``value`` is: for states and tokens of models."""
    if isinstance(value, list | tuple):
        return tuple([freeze(each) for each in value])
    if isinstance(value, dict):
        return ("{}", frozenset((key, freeze(each)) for key, each in value.items()))
    if isinstance(value, set | frozenset):
        return frozenset(freeze(each) for each in value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value  # type: ignore[no-any-return]


def validate(operation: Operation, where: str = "") -> None:
    """Raises HistoryError where the operation contradicts itself; ``where`` says which it is."""
    call, return_ = operation.call, operation.return_
    problem = ""
    if operation.status not in STATUSES:
        problem = f"the status is {operation.status!r}: write ok, fail or unknown"
    elif not _is_time(call):
        problem = f"the call is {_shown(call)}: give the time as a finite number"
    elif return_ is None:
        if operation.status == "ok":
            problem = "it is ok and has no return: give its time, or call its outcome unknown"
    elif not _is_time(return_):
        problem = f"the return is {_shown(return_)}: give the time as a finite number, or null"
    elif return_ < call:
        problem = (
            f"it returned at {return_}, before its call at {call}: take both times from one monotonic clock"
        )
    if problem:
        name = f"{operation.op} on {operation.key!r} by process {operation.process}"
        raise HistoryError(f"{where or name}: {problem}")


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def operation_to_json(operation: Operation) -> dict[str, Any]:
    """The JSON object of one operation. Raises HistoryError for what cannot be written, and for :func:`validate`."""
    validate(operation)
    return {
        "process": operation.process,
        "op": operation.op,
        "key": _encode(operation.key),
        "input": _encode(operation.input),
        "output": _encode(operation.output),
        "call": operation.call,
        "return": operation.return_,
        "status": operation.status,
    }


def _encode(value: Any) -> Any:
    """``value`` as JSON knows it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(data).decode("ascii")}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    if isinstance(value, dict):
        if list(value) == ["base64"]:
            raise HistoryError(
                f"{value!r}: an object with the single member base64 stands for bytes: rename it"
            )
        named = {(each.decode() if isinstance(each, bytes) else each): _encode(value[each]) for each in value}
        if all(isinstance(each, str) for each in named) and len(named) == len(value):
            return named
        raise HistoryError(f"{value!r}: the members of an object need different names that are text")
    raise HistoryError(
        f"{value!r} is a {type(value).__name__}, which JSON cannot hold: use text, bytes, numbers, lists, dicts"
    )


def operation_from_json(document: Any, where: str = "operation") -> Operation:
    """The operation of a JSON object. Raises HistoryError, which begins with ``where``."""
    if not isinstance(document, dict):
        raise HistoryError(f"{where}: not a JSON object: write one operation a line, as {{...}}")
    for name in REQUIRED:
        if name not in document:
            raise HistoryError(f"{where}: has no {name!r}: every operation needs {', '.join(REQUIRED)}")
    unexpected = [name for name in document if name not in FIELDS]
    if unexpected:
        raise HistoryError(f"{where}: unknown member {unexpected[0]!r}: there are {', '.join(FIELDS)}")
    process, op = document["process"], document["op"]
    if isinstance(process, bool) or not isinstance(process, int | str):
        raise HistoryError(f"{where}: the process is {process!r}: name it by a number or a text")
    if not isinstance(op, str) or not op:
        raise HistoryError(f"{where}: the op is {op!r}: name what was called, as text")
    try:
        operation = Operation(
            process,
            op,
            _decode(document.get("key")),
            _decode(document.get("input")),
            _decode(document.get("output")),
            document["call"],
            document.get("return"),
            document["status"],
        )
    except (binascii.Error, ValueError) as error:
        raise HistoryError(
            f"{where}: bad base64 ({error}): write bytes as text or as standard base64"
        ) from None
    validate(operation, where)
    return operation


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple([_decode(each) for each in value])
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("base64"), str):
            return base64.b64decode(value["base64"], validate=True)
        return {name: _decode(each) for name, each in value.items()}
    return value


def read_history(source: str | os.PathLike[str] | Iterable[str]) -> list[Operation]:
    """The operations of a file (by its path), or of lines.

    Raises HistoryError for a line that is malformed, with its number, and for a file that is not UTF-8; OSError where
    the file cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, encoding="utf-8") as file:
            try:
                return list(_operations(file, os.fspath(source)))
            except UnicodeDecodeError:
                raise HistoryError(f"{os.fspath(source)}: not UTF-8: a history is JSON lines") from None
    return list(_operations(source, ""))


def _operations(lines: Iterable[str], name: str) -> Iterator[Operation]:
    loads = json.loads
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}" if name else f"line {number}"
        try:
            document = loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "nested too deep"
            raise HistoryError(f"{where}: not JSON ({reason}): write one JSON object a line") from None
        yield operation_from_json(document, where)


def write_history(history: Iterable[Operation], target: str | os.PathLike[str]) -> int:
    """Writes JSON lines to the file at ``target``, replacing it. The number of operations written.

    Raises HistoryError for an operation that cannot be written (the lines before it are), OSError from the file.
    """
    count = 0
    dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    with open(target, "w", encoding="utf-8") as file:
        for operation in history:
            try:
                line = dumps(operation_to_json(operation))
            except ValueError as error:  # NaN and infinity are no JSON
                raise HistoryError(f"operation {count + 1}: {error}: use finite numbers") from None
            file.write(line + "\n")
            count += 1
    return count
