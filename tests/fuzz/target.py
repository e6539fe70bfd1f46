"""What a target is, and how one input is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["ERROR_CHARS_MAX", "Answered", "Broken", "Target", "judge", "judge_real", "require"]

ERROR_CHARS_MAX = 8_192
"""Of an error's text: it goes into logs and onto the wire, and must not repeat a megabyte of input."""


class Answered(Exception):
    """The decoder refused the input by a value of its own (None, BadFrame, an error result), which this names."""


class Broken(Exception):
    """The decoder accepted the input, and what it made of it cannot be."""


def require(holds: bool, what: str) -> None:
    """Raises Broken where an accepted input breaks a promise."""
    if not holds:
        raise Broken(what)


@dataclass(frozen=True, slots=True)
class Target:
    """One way in from outside.

    ``make`` gives a real value and its bytes; ``decode`` takes any bytes and gives the value back, or raises one of
    ``errors``, or Answered. It also checks what is promised of a value that is accepted, by :func:`require`.
    """

    name: str
    decoders: tuple[str, ...]
    """``module:function`` of everything that it feeds, without the leading ``paxos_rsm.``"""
    make: Callable[[Random], tuple[Any, bytes]]
    decode: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...] = ()
    is_proto: bool = True
    proto_from: int | None = None
    """Where a protobuf message begins that is not the whole input."""
    is_joined: bool = False
    """Whether the input is several, each after its length (``join_frames``)."""
    mend: Callable[[bytes], bytes] | None = None
    """Puts checksums right after a mutation, so that it is seen by what lies behind them."""
    repeats_input: bool = False
    """Whether an error may quote the whole input, since whoever reads it has written it."""
    blows_up: bool = True
    """Whether lists of many thousands are worth a try."""


def judge(target: Target, data: bytes) -> str:
    """What became of one input: ``accepted``, or the name of the refusal. Raises whatever is a bug."""
    try:
        target.decode(data)
    except Answered as answer:
        return str(answer)
    except target.errors as error:
        most = ERROR_CHARS_MAX + 20 * len(data) * target.repeats_input
        require(len(str(error)) <= most, f"{type(error).__name__} has {len(str(error))} characters")
        return type(error).__name__
    return "accepted"


def judge_real(target: Target, value: Any, data: bytes) -> str:
    """The same for a real input, which must come back as it was."""
    found = target.decode(data)
    require(found == value, f"a real input came back as another: {found!r:.2000} for {value!r:.2000}")
    return "accepted"
