"""The storage thread: group commit, so that the event loop never waits for a disk.

The event loop queues batches (:meth:`StorageThread.submit`, which only appends to a queue). The thread takes all that
is queued, gives it to the log as one group, syncs once, and says up to which batch all is done. While it syncs, the
next group gathers: a lone batch never waits for company, and under load one sync carries many batches.

``on_durable(n)`` means: every batch up to n has been handed to the system, and every one up to n that asked for a sync
is durable. It is called on the storage thread; the shell passes a function that hands the number to its event loop
(``loop.call_soon_threadsafe``) and returns at once.

The first error is the last thing that happens: it goes once to ``on_failure``, on the storage thread, and nothing that
is queued then or later is ever reported durable (DESIGN.md section 6: never retried, never ignored).

A full disk is no error as long as what waits for it is bounded: the log needs space for a new file, has written nothing
that it could not, and tries again every :data:`SPACE_LOOK_S` (segments.py). ``on_full`` is told, on the storage thread,
when that begins and ends. To the rest of the server it is a disk that takes long. Entries of more than
:data:`FULL_BYTES_MAX` waiting make it the error that it would otherwise have been.

Encoding and checksums are done on the thread as well, with the interpreter lock held: it is given up three times a
group, to wait, to write and to sync, and each time it has to be won back from the event loop, which takes up to
``sys.getswitchinterval()`` while the loop is busy. The process that runs both sets that to less than the default 5 ms.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.log import entry_bytes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided
from paxos_rsm.storage.base import LogStorage

__all__ = ["FULL_BYTES_MAX", "SPACE_LOOK_S", "StorageThread"]

SPACE_LOOK_S = 0.5
FULL_BYTES_MAX = 64 << 20
"""Of entries that may wait for a disk that is full: the others decide them without this server."""

_Batch = tuple[int, Sequence[Write], bool]


class StorageThread:
    """A :class:`paxos_rsm.storage.base.LogWriter` over a log, which belongs to the thread from now on."""

    def __init__(
        self,
        log: LogStorage,
        on_durable: Callable[[int], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[bool], None] = lambda is_full: None,
        name: str = "storage",
    ) -> None:
        self._log = log
        self._on_durable = on_durable
        self._on_failure = on_failure
        self._on_full = on_full
        self._is_full = False
        self._full_bytes = 0
        self._waits_no_more = threading.Event()
        log.wait_for_space = self._wait_for_space
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()  # None: no more will come
        self._is_closed = False
        # A daemon, so that a disk which never answers cannot keep a failed server from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, batch_number: int, writes: Sequence[Write], sync: bool = True) -> None:
        """Queues a batch, after every earlier one; ``writes`` must not be changed any more. Never blocks.

        Without ``sync`` nothing waits for this batch to be durable, which is for what can be learned again. After a
        failure the batch is forgotten: ``on_failure`` has been told. Raises InvariantViolation after :meth:`close`.
        """
        if self._is_closed:
            raise InvariantViolation(
                f"batch {batch_number} was submitted to a storage thread that has been closed"
            )
        if self._is_full:
            self._full_bytes += sum(
                [entry_bytes(each.entry) for each in writes if isinstance(each, WriteAccepted | WriteDecided)]
            )
            if self._full_bytes > FULL_BYTES_MAX:
                self._waits_no_more.set()
        self._queue.put((batch_number, writes, sync))

    def close(self) -> None:
        """Writes and syncs what is queued, closes the log, and waits until that is done. Closing twice is allowed.

        An error on the way goes to ``on_failure``. A full disk is one, now.
        """
        if not self._is_closed:
            self._is_closed = True
            self._waits_no_more.set()
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._commit_group():
                pass
            self._log.close()
        except Exception as error:
            with suppress(Exception):  # the first error is the one to tell
                self._log.close()
            self._on_failure(error)

    def _commit_group(self) -> bool:
        """Waits for a batch, then writes and syncs all that is queued. False where it was the last group."""
        batch = self._queue.get()
        writes: list[Write] = []
        last_number: int | None = None
        must_sync = False
        while batch is not None:
            last_number, batch_writes, batch_syncs = batch
            writes += batch_writes
            must_sync = must_sync or batch_syncs
            try:
                batch = self._queue.get_nowait()
            except Empty:
                break
        if last_number is not None:
            self._log.append(writes)
            if must_sync:
                self._log.sync()
            if self._is_full:
                self._is_full = False
                self._on_full(False)
            self._on_durable(last_number)
        return batch is not None

    def _wait_for_space(self) -> bool:
        """For the log, on this thread: whether to try again, after a while."""
        if not self._is_full:
            self._full_bytes = 0
            self._is_full = True
            self._on_full(True)
        return not self._waits_no_more.wait(SPACE_LOOK_S)
