"""What the transport says in the log: each thing once, however often a peer repeats it.

A peer that is away, refused or broken is met again several times a second. What is said of it is said when it
changes, and again after a while, so that it can be found in a log that was rotated.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RepeatLog"]

SUBJECTS_MAX = 1_024
REPEAT_AFTER_S = 300.0


class RepeatLog:
    """Always holds: remembers at most ``SUBJECTS_MAX`` subjects, the last spoken of."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._said: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def say(self, level: int, subject: str, text: str) -> None:
        """Logs ``text`` unless it was the last thing said of ``subject``, not long ago."""
        now = self._clock()
        last = self._said.get(subject)
        if last is not None and last[0] == text and now - last[1] < REPEAT_AFTER_S:
            return
        self._said[subject] = (text, now)
        self._said.move_to_end(subject)
        if len(self._said) > SUBJECTS_MAX:
            self._said.popitem(last=False)
        self._logger.log(level, "%s", text)
