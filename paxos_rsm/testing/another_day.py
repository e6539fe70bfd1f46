"""Another day: a while during which Python's clocks are somewhere else.

A machine that asks the time gives the same answers twice in a row, for two runs are milliseconds apart; it needs
another date to be found out. Only what reads the calendar is moved in a process that does other things too
(``time.time``, ``time.time_ns``): time-outs run on the monotonic clocks. In a process of its own, before the machine is
imported, everything is moved (``whole=True``), so that ``from time import monotonic`` and ``datetime.now`` get it as
well.
"""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["OFFSET_S", "another_day"]

OFFSET_S = 34_567_890
"""400 days, 2 hours and some: another year, month, weekday, hour and minute."""

CALENDAR = ("time", "time_ns")
MONOTONIC = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
BROKEN_DOWN = ("gmtime", "localtime", "ctime")


@contextlib.contextmanager
def another_day(offset_s: int = OFFSET_S, *, whole: bool = False) -> Iterator[None]:
    """Inside, the clocks are ``offset_s`` ahead; see the module's docstring."""
    names = CALENDAR + (MONOTONIC if whole else ())
    held: list[tuple[Any, str, Any]] = [(time, name, getattr(time, name)) for name in names]
    real_time = time.time
    for _, name, clock in held:
        setattr(time, name, _moved(clock, offset_s * 10**9 if name.endswith("_ns") else offset_s))
    if whole:
        for name in BROKEN_DOWN:
            real = getattr(time, name)
            held.append((time, name, real))
            setattr(time, name, _broken_down(real, real_time, offset_s))
        held += [(datetime, "datetime", datetime.datetime), (datetime, "date", datetime.date)]
        _move_datetime(datetime.timedelta(seconds=offset_s))
    try:
        yield
    finally:
        for module, name, real in held:
            setattr(module, name, real)


def _moved(clock: Callable[[], Any], offset: int) -> Callable[[], Any]:
    def moved() -> Any:
        return clock() + offset

    return moved


def _broken_down(
    real: Callable[[float], Any], clock: Callable[[], float], offset_s: int
) -> Callable[[float | None], Any]:
    """``gmtime`` and its like, which take the time of the system where they are given none."""

    def moved(at: float | None = None) -> Any:
        return real(clock() + offset_s if at is None else at)

    return moved


class _AsReal(type):
    """So that ``isinstance`` goes on to accept what the real class makes."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


def _move_datetime(offset: datetime.timedelta) -> None:
    """In place of the classes, others that say another ``now`` and ``today``."""
    real_now = datetime.datetime.now
    base: Any = datetime.datetime

    class MovedDatetime(base, metaclass=_AsReal):  # type: ignore[misc]  # the base is taken as it is now
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return real_now(tz) + offset

        @classmethod
        def utcnow(cls) -> Any:
            return real_now(datetime.UTC).replace(tzinfo=None) + offset

        @classmethod
        def today(cls) -> Any:
            return real_now() + offset

    base = datetime.date

    class MovedDate(base, metaclass=_AsReal):  # type: ignore[misc]
        @classmethod
        def today(cls) -> Any:
            return (real_now() + offset).date()

    for moved, name in ((MovedDatetime, "datetime"), (MovedDate, "date")):
        moved.__name__ = moved.__qualname__ = name
        setattr(datetime, name, moved)
