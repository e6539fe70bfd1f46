"""Clients that keep a cluster busy while the test kills its servers: coroutines in a thread with a loop of its own.

What was acknowledged, by whom and when, is noted here, so that afterwards every single write can be asked for.
"""

import asyncio
import itertools
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["PAUSE_S", "Acknowledged", "Load", "Worker"]

WAIT_S = 60.0
PAUSE_S = 0.1


class Acknowledged(NamedTuple):
    """One acknowledgement: when, by time.monotonic(), to whom, and of what."""

    at: float
    worker: str
    what: Any


class Load:
    """Workers that run until told to finish. What goes wrong in one of them comes out of :meth:`finish`.

    Acknowledgements are appended by the thread and only read by the test. ``pause_s`` is how long each of a worker's
    commands in flight waits after its answer, and may be changed at any time: 0 while there is something to be
    seen, more while servers start, which on a small machine need what there is of it.
    """

    def __init__(self, *workers: "Worker", pause_s: float = PAUSE_S) -> None:
        self.pause_s = pause_s
        self.acknowledged: list[Acknowledged] = []
        self.stopping = False
        self._workers = workers
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    async def note(self, worker: str, what: Any) -> None:
        """A write has been acknowledged just now. Pauses."""
        self.acknowledged.append(Acknowledged(time.monotonic(), worker, what))
        await asyncio.sleep(self.pause_s)

    def of(self, worker: str) -> list[Any]:
        """What was acknowledged to one worker, in order."""
        return [each.what for each in self.acknowledged if each.worker == worker]

    def wait_for(self, count: int, *workers: str) -> None:
        """Waits until ``count`` more have been acknowledged (to each of ``workers``, where some are named)."""
        names: tuple[str | None, ...] = workers or (None,)
        begin = len(self.acknowledged)
        deadline = time.monotonic() + WAIT_S
        while True:
            fresh = self.acknowledged[begin:]
            had = {name: sum(1 for each in fresh if name in (None, each.worker)) for name in names}
            if all(each >= count for each in had.values()):
                return
            if self._failure is not None:
                raise AssertionError(f"a client failed: {self._failure!r}") from self._failure
            assert time.monotonic() < deadline, f"too few acknowledged within {WAIT_S:g} s: {had} of {count}"
            time.sleep(0.01)

    def longest_gap_s(self, since: float, worker: str | None = None) -> float:
        """The longest time between two acknowledgements (to ``worker``) of which the second came after ``since``."""
        times = [each.at for each in self.acknowledged if worker in (None, each.worker)]
        first = bisect_right(times, since)
        assert first < len(times), "nothing was acknowledged since"
        start = times[first - 1] if first else since
        return max(later - earlier for earlier, later in itertools.pairwise([start, *times[first:]]))

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def finish(self) -> None:
        """Ends every worker after what it is doing, and raises what went wrong in one."""
        self.stopping = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"a client still waits for an answer after {WAIT_S:g} s"
        if self._failure is not None:
            raise AssertionError(f"a client failed: {self._failure!r}") from self._failure

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping = True
        if kind is None:
            self.finish()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # told to the test by whatever it waits for
            self._failure = error

    async def _work(self) -> None:
        await asyncio.gather(*(worker(self) for worker in self._workers))


Worker = Callable[[Load], Coroutine[Any, Any, None]]
