"""Reads the traces that tracing_server.py leaves, and checks rule 4: nothing is said before it is durable.

What is checked, for every frame to a peer that a server wrote:

=====================  ===============================================================================
``Prepare(b)``         a promise of b, or above, was durable (the candidate's own)
``Promise(b)``         a promise of b, or above, was durable, and so was every vote that it reports
``Accepted(b, slots)`` this server's vote of ballot b in each of these slots was durable; or, where it had learned
                       that the slot is decided, that, and a promise of b or above
``Hello``              a promise as high as it tells was durable
a watermark            for every slot up to it a quorum had durable votes in one ballot: so a leader that
(Accept, Decide,       counts its own vote too early is seen, by the traces of all servers laid side by
Heartbeat)             side. Slot 1, the genesis entry, needs the votes of all
=====================  ===============================================================================

And rule 2, over all the processes of a server: its Prepares never go back to a ballot of an earlier process.

A record is durable when a sync of its file has *ended* that *began* after it had been written. What was written by
a process that died before its sync is durable when a later process has synced that file: SIGKILL takes nothing from the
system's cache.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from paxos_rsm._proto import paxos_pb2
from paxos_rsm.paxos.ready import WriteAccepted, WriteDecided, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Slot
from paxos_rsm.storage.headers import HEADER_BYTES, RECORDS_START, decode_header
from paxos_rsm.storage.payloads import decode_write
from paxos_rsm.storage.records import RecordFormat
from tests.integration.tracing_server import EVENT, SEND, START, SYNC_BEGIN, SYNC_END, WRITE

__all__ = ["Checked", "Event", "Vote", "check", "read_trace"]

GENESIS_SLOT: Slot = 1


class Vote(NamedTuple):
    """A vote of one server."""

    slot: Slot
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a trace. Of a write: what it wrote, as votes, slots learned as decided, and the highest promise."""

    kind: int
    at_ns: int
    path: str = ""
    votes: tuple[Vote, ...] = ()
    decided: tuple[Slot, ...] = ()
    promise: Ballot = NO_BALLOT
    frame: paxos_pb2.PeerFrame = field(default_factory=paxos_pb2.PeerFrame)


class _Claim(NamedTuple):
    """A server has said that every slot up to ``through`` is decided."""

    at_ns: int
    through: Slot
    what: str


@dataclass(slots=True)
class Checked:
    """What a check has seen: how much, so that nobody believes one that saw nothing, and every violation."""

    violations: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ballots: dict[str, list[Ballot]] = field(default_factory=dict)
    """Of each server, those of its Prepares, in the order in which they were first sent by each process."""

    def kinds(self) -> set[str]:
        """Which kinds of message were in violation."""
        return {violation.split()[1] for violation in self.violations}


# ---- reading ---------------------------------------------------------------------------------------------


def read_trace(path: Path) -> list[Event]:
    """The events of one server. A last one that was cut off by a SIGKILL is left out."""
    data = path.read_bytes()
    events: list[Event] = []
    formats: dict[str, RecordFormat] = {}
    at = 0
    while at + EVENT.size <= len(data):
        kind, at_ns, path_length, length, number = EVENT.unpack_from(data, at)
        at += EVENT.size
        file = data[at : at + path_length].decode().removesuffix(".new")
        body = data[at + path_length : at + path_length + length]
        at += path_length + length
        if at > len(data):
            break
        if kind == WRITE:
            events.append(_write(at_ns, file, number, body, formats))
        elif kind == SEND:
            events.append(Event(kind, at_ns, frame=paxos_pb2.PeerFrame.FromString(body)))
        else:
            events.append(Event(kind, at_ns, file))
    return events


def _write(at_ns: int, file: str, offset: int, data: bytes, formats: dict[str, RecordFormat]) -> Event:
    if not file.endswith(".log"):
        return Event(WRITE, at_ns, file)
    if offset < RECORDS_START:
        header = decode_header(data[:HEADER_BYTES])
        if header is not None:
            formats[file] = RecordFormat(header.salt, header.version)
        return Event(WRITE, at_ns, file)
    votes: list[Vote] = []
    decided: list[Slot] = []
    promise = NO_BALLOT
    # A record is read at its place in the segment: its layout knows of sectors.
    at, segment = offset, bytes(offset) + data
    while (record := formats[file].read(segment, at)) is not None:
        at = record.end
        if record.is_mark:
            continue
        write = decode_write(record.row)
        if isinstance(write, WriteAccepted):
            votes.append(Vote(write.slot, write.ballot))
        elif isinstance(write, WriteDecided):
            decided.append(write.slot)
        if isinstance(write, WriteAccepted | WritePromise):
            promise = max(promise, write.ballot)
    return Event(WRITE, at_ns, file, tuple(votes), tuple(decided), promise)


# ---- checking --------------------------------------------------------------------------------------------


def check(traces: Mapping[str, Iterable[Event]], quorum: int) -> Checked:
    """Lays the traces of all servers of a cluster (by name) side by side, and looks for violations."""
    checked = Checked()
    servers = {name: _Server(name, checked) for name in traces}
    for name, events in traces.items():
        for event in events:
            servers[name].take(event)
        checked.ballots[name] = servers[name].ballots
    decided_at = _durably_decided(servers.values(), quorum)
    for server in servers.values():
        for claim in server.claims:
            checked.seen["watermark"] += 1
            for slot in range(1, claim.through + 1):
                if decided_at.get(slot, claim.at_ns + 1) > claim.at_ns:
                    checked.violations.append(
                        f"{server.name}: {claim.what} says that slot {slot} is decided, and no quorum has it durably"
                    )
                    break
    return checked


def _durably_decided(servers: Iterable["_Server"], quorum: int) -> dict[Slot, int]:
    """For each slot, when a quorum (for the genesis entry, all) first had durable votes in one ballot."""
    servers = list(servers)
    times: dict[Vote, list[int]] = defaultdict(list)
    for server in servers:
        for vote, at_ns in server.durable_at.items():
            times[vote].append(at_ns)
    decided: dict[Slot, int] = {}
    for vote, each in times.items():
        needed = len(servers) if vote.slot == GENESIS_SLOT else quorum
        if len(each) >= needed:
            at_ns = sorted(each)[needed - 1]
            decided[vote.slot] = min(decided.get(vote.slot, at_ns), at_ns)
    return decided


class _Server:
    """One server's events, in order: what it has written, what of that is durable, what it says."""

    def __init__(self, name: str, checked: Checked) -> None:
        self.name = name
        self.claims: list[_Claim] = []
        self.ballots: list[Ballot] = []
        self.durable_at: dict[Vote, int] = {}
        self._checked = checked
        self._promise = NO_BALLOT
        self._decided: set[Slot] = set()
        self._written: dict[str, list[Event]] = defaultdict(list)
        self._syncing: dict[str, int] = {}
        self._before_this_process = NO_BALLOT

    def take(self, event: Event) -> None:
        """The next event."""
        if event.kind == START:
            self._syncing.clear()
            self._before_this_process = max(self.ballots, default=NO_BALLOT)
        elif event.kind == WRITE:
            self._written[event.path].append(event)
        elif event.kind == SYNC_BEGIN:
            self._syncing[event.path] = len(self._written[event.path])
        elif event.kind == SYNC_END:
            count = self._syncing.pop(event.path)
            written = self._written[event.path]
            for write in written[:count]:
                self._durable(write, event.at_ns)
            del written[:count]
        elif event.kind == SEND:
            self._check_frame(event)

    def _durable(self, write: Event, at_ns: int) -> None:
        self._promise = max(self._promise, write.promise)
        self._decided.update(write.decided)
        for vote in write.votes:
            self.durable_at.setdefault(vote, at_ns)

    def _violation(self, what: str) -> None:
        self._checked.violations.append(f"{self.name}: {what}")

    def _check_frame(self, event: Event) -> None:
        frame = event.frame
        if frame.HasField("piece"):
            raise ValueError(
                "the check knows whole messages only: give the servers smaller values to work on"
            )
        if frame.HasField("hello"):
            self._checked.seen["Hello"] += 1
            if _ballot(frame.hello.promised) > self._promise:
                self._violation(
                    f"Hello tells a promise of {_ballot(frame.hello.promised)} that is not durable"
                )
        for message in frame.messages:
            kind = message.WhichOneof("message")
            if kind == "prepare":
                self._check_prepare(_ballot(message.prepare.ballot))
            elif kind == "promise":
                self._check_promise(message.promise)
            elif kind == "accepted":
                self._check_accepted(message.accepted)
            elif kind == "accept":
                self._claim(event, message.accept.decided_through, "Accept")
            elif kind == "decide":
                self._claim(event, message.decide.decided_through, "Decide")
            elif kind == "heartbeat":
                self._claim(event, message.heartbeat.decided_through, "Heartbeat")

    def _check_prepare(self, ballot: Ballot) -> None:
        self._checked.seen["Prepare"] += 1
        if ballot > self._promise:
            self._violation(f"Prepare of {ballot} left before the candidate's own promise was durable")
        if ballot <= self._before_this_process:
            self._violation(f"Prepare of {ballot} uses a ballot of an earlier process again (rule 2)")
        if not self.ballots or self.ballots[-1] != ballot:
            self.ballots.append(ballot)

    def _check_promise(self, promise: paxos_pb2.Promise) -> None:
        self._checked.seen["Promise"] += 1
        ballot = _ballot(promise.ballot)
        if ballot > self._promise:
            self._violation(f"Promise of {ballot} left before it was durable")
        for vote in _votes(promise.accepted):
            if vote not in self.durable_at:
                self._violation(f"Promise of {ballot} reports a vote in slot {vote.slot} that is not durable")

    def _check_accepted(self, accepted: paxos_pb2.Accepted) -> None:
        self._checked.seen["Accepted"] += 1
        ballot = _ballot(accepted.ballot)
        for slot in accepted.slots:
            learned = slot in self._decided and ballot <= self._promise
            if Vote(slot, ballot) not in self.durable_at and not learned:
                self._violation(f"Accepted of slot {slot} in {ballot} left before the vote was durable")

    def _claim(self, event: Event, through: Slot, what: str) -> None:
        if through and (not self.claims or through > self.claims[-1].through or what != self.claims[-1].what):
            self.claims.append(_Claim(event.at_ns, through, what))


def _ballot(message: paxos_pb2.Ballot) -> Ballot:
    return Ballot(message.round, message.node)


def _votes(entries: Iterable[paxos_pb2.SlotEntry]) -> Iterator[Vote]:
    return (Vote(entry.slot, _ballot(entry.ballot)) for entry in entries)
