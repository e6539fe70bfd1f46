"""What the transport says in the log: each thing once, however often a peer repeats it.

A peer that is away, refused or broken is met again several times a second. What is said of it is said when it
changes, and again after a while, so that it can be found in a log that was rotated. A peer that changes all the
time (its streams open and break, say) is spoken of so often a minute and no more.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RepeatLog"]

SUBJECTS_MAX = 1_024
REPEAT_AFTER_S = 300.0
CHANGES_A_MINUTE_MAX = 20


@dataclass(slots=True)
class _Said:
    text: str
    at: float
    minute_began: float
    changes: int


class RepeatLog:
    """Always holds: remembers at most ``SUBJECTS_MAX`` subjects, the last spoken of."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._said: OrderedDict[str, _Said] = OrderedDict()

    def say(self, level: int, subject: str, text: str) -> None:
        """Logs ``text`` unless it was the last thing said of ``subject``, not long ago."""
        now = self._clock()
        said = self._said.get(subject)
        if said is None:
            said = self._said[subject] = _Said("", now, now, 0)
            if len(self._said) > SUBJECTS_MAX:
                self._said.popitem(last=False)
        elif said.text == text and now - said.at < REPEAT_AFTER_S:
            return
        self._said.move_to_end(subject)
        if now - said.minute_began >= 60:
            said.minute_began, said.changes = now, 0
        said.changes += 1
        if said.changes > CHANGES_A_MINUTE_MAX:
            return
        said.text, said.at = text, now
        self._logger.log(level, "%s", text)
        if said.changes == CHANGES_A_MINUTE_MAX:
            self._logger.warning("this changes all the time; no more of it for a minute")
