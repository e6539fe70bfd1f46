"""Snapshots on their way between servers.

A server that is behind the log of its peers fetches the snapshot of one of them, file as it is, in parts: it asks for
each part by its offset, a few ahead of what has come, and writes what comes. So it can go on where it was cut off, with
the same peer or after a restart of its own, as long as the peer still has that file. The peer answers in the order
of the questions, no faster than a rate that leaves its clients their share.

Like the rest of the replica this knows no disk: what has to be read or written is a :data:`SnapshotTask`, which the
driver does, one after the other, and reports. The answers to tasks come in the order of the tasks.

Nothing here decides anything: which snapshot is good enough is for :class:`~paxos_rsm.paxos.node.Node`, and what a file
holds is checked, whole, before it is believed (storage/snapshots.py).
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from paxos_rsm.paxos.messages import Envelope, FetchSnapshot, SnapshotChunk
from paxos_rsm.paxos.types import NodeId, Slot

__all__ = ["PART_BYTES", "DropSnapshots", "FinishFetch", "ReadPart", "SnapshotTask", "Transfer", "WritePart"]

PART_BYTES = 256 << 10
WINDOW_PARTS = 4
"""Asked for and not written yet."""
QUESTIONS_MAX = 2 * WINDOW_PARTS
"""Of one peer that wait: whoever asks for more asks again what it has lost."""
TRIES_MAX = 5
SILENT_TRIES_MAX = 2
"""Of a peer that has said nothing yet: there is nothing to lose, and another may have one."""
SNAPSHOT_BYTES_MAX = 1 << 40
"""More than a state in memory comes to; a peer that says so is wrong, and no file of that size is made for it."""


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Read a part of the snapshot of ``slot`` from ``offset`` on, for the peer ``to``; then :meth:`Transfer.read`."""

    to: NodeId
    slot: Slot
    offset: int


@dataclass(frozen=True, slots=True)
class WritePart:
    """Write a part of a snapshot that is being fetched; then :meth:`Transfer.written`."""

    slot: Slot
    size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FinishFetch:
    """All parts are written: check the whole, make it durable, put it in the place of the state.

    Then :meth:`Transfer.finished`, whatever came of it.
    """

    slot: Slot
    size: int


@dataclass(frozen=True, slots=True)
class DropSnapshots:
    """The state is wrong, and so may be its snapshots: put them aside, and let nobody ask the state any more."""


SnapshotTask: TypeAlias = ReadPart | WritePart | FinishFetch | DropSnapshots


class _Fetch:
    """What is being fetched. Always holds: ``written <= come <= asked``, all in bytes from the start of the file."""

    __slots__ = ("asked", "come", "heard", "peer", "progress_at", "size", "slot", "tries", "written")

    def __init__(self, peer: NodeId, now: int) -> None:
        self.peer = peer
        self.slot: Slot = 0
        self.size = 0
        self.asked = 0
        self.come = 0
        self.written = 0
        self.progress_at = now
        self.tries = 0
        self.heard = False
        """From this peer."""


class Transfer:
    """Both ends of it, of one server. Time is in ticks."""

    def __init__(self, rate_bytes_per_tick: int, patience_ticks: int, part_bytes: int = PART_BYTES) -> None:
        self._rate = rate_bytes_per_tick
        self._part = part_bytes
        self._patience = patience_ticks
        self._now = 0
        # as the one that fetches
        self._fetch: _Fetch | None = None
        self.begun = 0
        """So many times a peer was chosen to fetch from."""
        self._at_least: Slot = 0
        self._partial: tuple[Slot, int, int] | None = None
        # as the one that sends
        self._questions: dict[NodeId, deque[tuple[Slot, int]]] = {}
        self._budget = 0
        self._reading = 0
        self.newest: Slot = 0
        """The slot of the newest durable snapshot here; 0 where there is none."""
        self.wanted_from: Slot = 0
        """A peer has asked, last of all, for a snapshot of this slot or a later one, and there is none so new."""
        self._sent: dict[NodeId, tuple[Slot, int]] = {}

        self._messages: list[Envelope] = []
        self._tasks: list[SnapshotTask] = []

    # ---- what is to be done ----------------------------------------------------------------------------------

    def take(self) -> tuple[list[Envelope], list[SnapshotTask]]:
        """What is to be sent and to be done, once."""
        messages, tasks = self._messages, self._tasks
        if messages:
            self._messages = []
        if tasks:
            self._tasks = []
        return messages, tasks

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give anything."""
        return bool(self._messages or self._tasks)

    def tick(self) -> None:
        """Time goes on by one tick."""
        self._now += 1
        fetch = self._fetch
        if fetch is not None and fetch.size and fetch.written == fetch.size:
            fetch.progress_at = self._now  # it is being checked and installed
        if fetch is not None and self._now - fetch.progress_at >= self._patience << fetch.tries:
            fetch.tries += 1
            tries_max = TRIES_MAX if fetch.heard else SILENT_TRIES_MAX
            if fetch.tries >= tries_max:
                self._give_up()
            else:
                # What is on its way may be lost; what comes twice is not written twice.
                fetch.asked = fetch.come
                fetch.progress_at = self._now
                self._ask()
        if self._questions:
            self._budget = min(self._budget + self._rate, max(self._rate, WINDOW_PARTS * self._part))
            self._serve()
        for node in [n for n, (_, at) in self._sent.items() if self._now - at > 20 * self._patience]:
            del self._sent[node]

    # ---- fetching --------------------------------------------------------------------------------------------

    @property
    def fetching(self) -> bool:
        """Whether a snapshot is on its way here, or being installed."""
        return self._fetch is not None

    def resume(self, slot: Slot, size: int, written: int) -> None:
        """At a start: so much of the snapshot of ``slot`` was fetched before."""
        self._partial = (slot, size, written) if written else None

    def want(self, peer: NodeId, at_least: Slot) -> None:
        """A snapshot of the slot ``at_least`` or a later one is needed, and ``peer`` has one."""
        if self._fetch is not None:
            return
        self._at_least = at_least
        self.begun += 1
        fetch = self._fetch = _Fetch(peer, self._now)
        if self._partial is not None and self._partial[0] >= at_least:
            fetch.slot, fetch.size, fetch.written = self._partial
            fetch.come = fetch.asked = fetch.written
            if fetch.come == fetch.size:
                self._tasks.append(FinishFetch(fetch.slot, fetch.size))
                return
        self._ask()

    def _ask(self) -> None:
        """Asks for what the window has room for; of a snapshot that is not known yet, for its beginning."""
        fetch = self._fetch
        if fetch is None:
            return
        if not fetch.slot:
            self._send(fetch.peer, FetchSnapshot(self._at_least, 0))
            return
        while fetch.asked < fetch.size and fetch.asked < fetch.written + WINDOW_PARTS * self._part:
            self._send(fetch.peer, FetchSnapshot(fetch.slot, fetch.asked))
            fetch.asked = min(fetch.asked + self._part, fetch.size)

    def chunk(self, sender: NodeId, message: SnapshotChunk) -> None:
        """A part has come, or word that there is none."""
        fetch = self._fetch
        if fetch is None or sender != fetch.peer:
            return
        fetch.heard = True
        if not message.data:
            self._gone(fetch, message)
            return
        if message.size > SNAPSHOT_BYTES_MAX:
            return
        if not fetch.slot and message.offset == 0 and message.slot >= self._at_least:
            fetch.slot, fetch.size = message.slot, message.size
            fetch.asked = len(message.data)
        if message.slot == fetch.slot and message.size != fetch.size:
            # What there is of it came from somebody else, whose file of that slot is another one: equal states need
            # not be equal bytes.
            self._gone(fetch, message)
            return
        if (message.slot, message.size, message.offset) != (fetch.slot, fetch.size, fetch.come):
            return
        fetch.come += len(message.data)
        fetch.progress_at, fetch.tries = self._now, 0
        self._tasks.append(WritePart(fetch.slot, fetch.size, message.offset, message.data))

    def _gone(self, fetch: _Fetch, message: SnapshotChunk) -> None:
        """The peer has that snapshot no more: it is asked for another, from the start."""
        if message.slot == fetch.slot:
            self._partial = None
            self._fetch = _Fetch(fetch.peer, self._now)
            self._ask()

    def written(self, slot: Slot, through: int) -> None:
        """What was fetched of the snapshot of ``slot`` is written up to ``through``."""
        fetch = self._fetch
        if fetch is None or fetch.slot != slot:
            return
        fetch.written = through
        fetch.progress_at = self._now
        if through == fetch.size:
            self._tasks.append(FinishFetch(slot, fetch.size))
        else:
            self._ask()

    def finished(self) -> None:
        """What was fetched has been installed, or was of no use: what is needed next is asked for anew."""
        self._fetch = self._partial = None

    def drop(self) -> None:
        """The snapshots that there are here, whole or in part, are worth nothing: nobody is sent one of them."""
        self.finished()
        self._questions.clear()
        self._sent.clear()
        self.newest = self.wanted_from = 0
        self._tasks.append(DropSnapshots())

    def lost(self, node: NodeId) -> None:
        """The streams to a peer have broken; what was fetched from it stays, for when one of them has it still."""
        self._questions.pop(node, None)
        fetch = self._fetch
        if fetch is not None and fetch.peer == node and not (fetch.size and fetch.written == fetch.size):
            self._give_up()

    def _give_up(self) -> None:
        fetch, self._fetch = self._fetch, None
        if fetch is not None and fetch.written:
            self._partial = fetch.slot, fetch.size, fetch.written

    # ---- sending ---------------------------------------------------------------------------------------------

    @property
    def sending(self) -> bool:
        """Whether a peer has asked for a part of a snapshot of late."""
        return bool(self._questions) or any(
            self._now - at < 2 * self._patience for _, at in self._sent.values()
        )

    def asked(self, sender: NodeId, message: FetchSnapshot) -> None:
        """A peer asks for a part."""
        slot = message.slot
        if message.offset == 0 and slot <= self.newest:
            slot = self.newest
        elif message.offset == 0:
            # It asks again when it hears nothing, and there may be one by then.
            self.wanted_from = slot
            return
        questions = self._questions.setdefault(sender, deque())
        if len(questions) < QUESTIONS_MAX and (slot, message.offset) not in questions:
            questions.append((slot, message.offset))
            self._serve()

    def _serve(self) -> None:
        """Answers what the budget allows, peers in turn."""
        while self._budget > 0 and self._questions:
            to = next(iter(self._questions))
            questions = self._questions.pop(to)
            slot, offset = questions.popleft()
            if questions:
                self._questions[to] = questions
            self._budget -= self._part
            self._sent[to] = slot, self._now
            self._tasks.append(ReadPart(to, slot, offset))

    def read(self, to: NodeId, slot: Slot, size: int, offset: int, data: bytes) -> None:
        """A part has been read; without data where there is no such snapshot any more."""
        self._send(to, SnapshotChunk(slot, size, offset, data))

    def keep_above(self) -> Slot | None:
        """The lowest slot of a snapshot that a peer was sent of late: it will want the log from there on."""
        return min((slot for slot, _ in self._sent.values()), default=None)

    def _send(self, to: NodeId, message: FetchSnapshot | SnapshotChunk) -> None:
        self._messages.append(Envelope(to, message))
