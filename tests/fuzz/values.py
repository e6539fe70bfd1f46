"""Real objects, drawn from a ``Random``: what honest servers, clients and disks hold."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TypeVar

from paxos_rsm.machines.base import Position
from paxos_rsm.machines.frames import Expire, Frame, Register
from paxos_rsm.machines.kv import types as kv
from paxos_rsm.paxos.changes import (
    AddMember,
    Change,
    JoinMember,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from paxos_rsm.paxos.membership import Configuration, Member
from paxos_rsm.paxos.messages import (
    Accept,
    Accepted,
    CatchUp,
    CatchUpReply,
    ChangeReply,
    ChangeRequest,
    Decide,
    FetchSnapshot,
    Forward,
    HandOver,
    Heartbeat,
    HeartbeatReply,
    Message,
    Nack,
    Prepare,
    Promise,
    ReadReply,
    ReadRequest,
    SnapshotChunk,
    StateDigest,
)
from paxos_rsm.paxos.quorum import QuorumSizes
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Noop, join_frames
from paxos_rsm.transport.handshake import Hello, Reason, Refusal
from tests.fuzz.mutate import INTERESTING

NUMBER_MAX = 2**63 - 1
UINT64_MAX = 2**64 - 1
INTERESTING_32 = tuple(number for number in INTERESTING if number < 1 << 32)
PUT_A = kv.Put(b"a", b"1")
AT = Position(1, 0)

T = TypeVar("T")


# ---- numbers and texts ---------------------------------------------------------------------------------------


def number(rng: Random, low: int = 1, high: int = NUMBER_MAX) -> int:
    """Of every size, the ends included."""
    match rng.randrange(5):
        case 0:
            return rng.choice((low, high))
        case 1:
            return rng.randint(low, min(high, low + 300))
        case _:
            return min(high, max(low, rng.getrandbits(rng.randint(1, 64))))


def several(rng: Random, make: Callable[[Random], T], most: int = 4) -> tuple[T, ...]:
    """None to ``most`` of them."""
    return tuple([make(rng) for _ in range(rng.randint(0, most))])


def text(rng: Random, most: int = 12) -> str:
    """Of one, two, three and four bytes a character."""
    return "".join(
        [chr(rng.choice((rng.randint(32, 126), 0xE4, 0x20AC, 0x1F600))) for _ in range(rng.randint(0, most))]
    )


def blob(rng: Random, most: int = 60) -> bytes:
    """Bytes; now and then of a length that takes two bytes to say."""
    return rng.randbytes(rng.randint(0, most if rng.random() < 0.9 else 20 * most))


# ---- peers ---------------------------------------------------------------------------------------------------


def ballot(rng: Random) -> Ballot:
    return Ballot(number(rng), number(rng))


def promise_or_none(rng: Random) -> Ballot:
    return NO_BALLOT if rng.random() < 0.2 else ballot(rng)


def member(rng: Random, name: str) -> Member:
    return Member(number(rng), number(rng), name, text(rng), several(rng, text, 2))


def learner(rng: Random, at: int) -> Member:
    """One that has joined, or has yet to."""
    drawn = member(rng, f"l{at}{text(rng, 4)}")
    incarnation = rng.choice((0, 100 + at))
    return Member(
        incarnation, 200 + at, drawn.name, drawn.peer_url, drawn.client_urls, True, rng.random() < 0.5
    )


def configuration(rng: Random) -> Configuration:
    count = rng.randint(1, 5)
    members: dict[int, Member] = {}
    while len(members) < count:
        at = len(members)
        drawn = member(rng, f"n{at}{text(rng, 4)}")
        members[at] = Member(at + 1, 100 + at, drawn.name, drawn.peer_url, drawn.client_urls)
    phase2 = rng.randint(1, count)
    quorum = QuorumSizes(count, rng.randint(count + 1 - phase2, count), phase2)
    if rng.random() < 0.5:
        return Configuration(number(rng), tuple(members.values()), quorum)
    learners = [learner(rng, at) for at in range(rng.randint(0, 2))]
    removed = several(rng, lambda r: number(r, 1_000, UINT64_MAX))
    return Configuration(number(rng), (*members.values(), *learners), quorum, removed, several(rng, counter))


def change(rng: Random) -> Change:
    match rng.randrange(5):
        case 0:
            return AddMember(replace(learner(rng, 0), incarnation=0))
        case 1:
            return JoinMember(counter(rng), number(rng), text(rng), several(rng, text, 2), text(rng))
        case 2:
            return RemoveMember(counter(rng))
        case 3:
            return UpdateMember(counter(rng), text(rng), several(rng, text, 2))
        case _:
            return PromoteMember(counter(rng))


def entry(rng: Random) -> Entry:
    match rng.randrange(5):
        case 0:
            return Noop()
        case 1:
            return ConfigChange(configuration(rng))
        case 2:
            return Batch(blob(rng, 200))
        case _:
            return Batch(join_frames(several(rng, blob)))


def watermark(rng: Random) -> int:
    return number(rng, 0)


def counter(rng: Random) -> int:
    return number(rng, 0, UINT64_MAX)


def snapshot_chunk(rng: Random) -> SnapshotChunk:
    data = blob(rng)
    if not data:
        return SnapshotChunk(watermark(rng), watermark(rng), watermark(rng), b"")
    size = number(rng, len(data))
    return SnapshotChunk(number(rng), size, number(rng, 0, size - len(data)), data)


def state_digest(rng: Random) -> StateDigest:
    slots = {number(rng) for _ in range(rng.randint(1, 4))}
    return StateDigest(tuple((slot, rng.randbytes(16)) for slot in sorted(slots)))


def hops(rng: Random) -> int:
    return number(rng, 0, 2**32 - 1)


def vote(rng: Random) -> tuple[int, Ballot, Entry]:
    return number(rng), ballot(rng), entry(rng)


def decision(rng: Random) -> tuple[int, Entry]:
    return number(rng), entry(rng)


MESSAGES: dict[type, Callable[[Random], Message]] = {
    Prepare: lambda rng: Prepare(ballot(rng), number(rng)),
    Promise: lambda rng: Promise(
        ballot(rng),
        number(rng),
        rng.choice((None, watermark(rng))),
        several(rng, vote, 3),
        several(rng, decision, 3),
        watermark(rng),
        several(rng, number),
    ),
    Accept: lambda rng: Accept(ballot(rng), number(rng), entry(rng), watermark(rng)),
    Accepted: lambda rng: Accepted(ballot(rng), several(rng, number)),
    Nack: lambda rng: Nack(ballot(rng), ballot(rng)),
    Decide: lambda rng: Decide(ballot(rng), watermark(rng)),
    Heartbeat: lambda rng: Heartbeat(
        promise_or_none(rng),
        rng.random() < 0.5,
        rng.random() < 0.5,
        watermark(rng),
        counter(rng),
        frozenset(several(rng, counter)),
        promise_or_none(rng),
    ),
    HeartbeatReply: lambda rng: HeartbeatReply(promise_or_none(rng), counter(rng)),
    CatchUp: lambda rng: CatchUp(number(rng), watermark(rng)),
    CatchUpReply: lambda rng: CatchUpReply(
        promise_or_none(rng), several(rng, decision, 3), watermark(rng), watermark(rng)
    ),
    Forward: lambda rng: Forward(several(rng, blob), hops(rng)),
    ReadRequest: lambda rng: ReadRequest(counter(rng), hops(rng)),
    ReadReply: lambda rng: ReadReply(counter(rng), watermark(rng)),
    ChangeRequest: lambda rng: ChangeRequest(number(rng, 1, UINT64_MAX), change(rng), hops(rng)),
    ChangeReply: lambda rng: ChangeReply(counter(rng), text(rng), hops(rng)),
    HandOver: lambda rng: HandOver(ballot(rng)),
    FetchSnapshot: lambda rng: FetchSnapshot(watermark(rng), watermark(rng)),
    SnapshotChunk: snapshot_chunk,
    StateDigest: state_digest,
}


def message(rng: Random) -> Message:
    return rng.choice(tuple(MESSAGES.values()))(rng)


def hello(rng: Random) -> Hello:
    versions = several(rng, lambda r: number(r, 0, 2**32 - 1), 3)
    return Hello(
        number(rng),
        member(rng, text(rng)),
        number(rng),
        promise_or_none(rng),
        rng.random() < 0.5,
        versions,
        number(rng, 1, UINT64_MAX),
        rng.random() < 0.5,
        rng.choice(("", "5e" * 32)),
        number(rng, 0, 2**32 - 1),
    )


def refusal(rng: Random) -> Refusal:
    return Refusal(rng.choice(tuple(Reason)), text(rng, 60), rng.random() < 0.5)


# ---- clients -------------------------------------------------------------------------------------------------


def frame(rng: Random) -> Frame:
    match rng.randrange(6):
        case 0:
            return Frame(counter(rng), commands=[], register=Register(counter(rng), hops(rng)))
        case 1:
            return Frame(counter(rng), commands=[], expire=Expire(counter(rng), counter(rng)))
        case _:
            return Frame(counter(rng), counter(rng), counter(rng), list(several(rng, blob)))


def key(rng: Random) -> bytes:
    """Few, so that they meet again."""
    return rng.choice((b"a", b"b", b"c", b"k1", b"k2", b"\0", b"\xff", b"zz" * 70))


def range_end(rng: Random) -> bytes:
    return rng.choice((b"", b"", b"\0", key(rng)))


def revision(rng: Random) -> int:
    return rng.choice((0, 0, 1, 2, 5, -1, rng.randint(0, 30), NUMBER_MAX, -NUMBER_MAX - 1))


def _put(rng: Random) -> kv.Put:
    plain = rng.random() < 0.6
    flags = [not plain and rng.random() < 0.4 for _ in range(3)]
    return kv.Put(key(rng), blob(rng), 0 if plain else rng.choice((0, 7)), *flags)


def _range(rng: Random) -> kv.Range:
    if rng.random() < 0.4:
        return kv.Range(key(rng))
    flags = [rng.random() < 0.3 for _ in range(3)]
    bounds = [rng.choice((0, 0, revision(rng))) for _ in range(4)]
    return kv.Range(
        key(rng),
        range_end(rng),
        rng.choice((0, 1, 2, -1)),
        revision(rng),
        rng.randrange(3),
        rng.randrange(5),
        *flags,
        *bounds,
    )


def _delete(rng: Random) -> kv.DeleteRange:
    return kv.DeleteRange(key(rng), range_end(rng), rng.random() < 0.5)


def _compare(rng: Random) -> kv.Compare:
    target = rng.randrange(5)
    operand: int | bytes = blob(rng, 4) if target == kv.CompareTarget.VALUE else revision(rng)
    return kv.Compare(key(rng), target, rng.randrange(4), operand, range_end(rng))


def txn(rng: Random, depth: int = 0) -> kv.Txn:
    def operation(r: Random) -> kv.Operation:
        if depth < 3 and r.random() < 0.15:
            return txn(r, depth + 1)
        return r.choice((_put, _range, _delete))(r)

    return kv.Txn(several(rng, _compare, 3), several(rng, operation, 3), several(rng, operation, 3))


def command(rng: Random) -> kv.Command:
    make = rng.choice((_put, _put, _put, _range, _range, _delete, txn, txn, _compact))
    drawn: kv.Command = make(rng)
    return drawn


def logged_command(rng: Random) -> kv.Command:
    """One that may stand in the log, though no client asks for it."""
    return _set_quota(rng) if rng.random() < 0.1 else command(rng)


def _compact(rng: Random) -> kv.Compact:
    return kv.Compact(revision(rng), rng.random() < 0.5)


def _set_quota(rng: Random) -> kv.SetQuota:
    return kv.SetQuota(rng.choice((0, 1, 1000, 2**63, 2**64 - 1)))


# ---- disk ----------------------------------------------------------------------------------------------------


def write(rng: Random) -> Write:
    match rng.randrange(5):
        case 0:
            return WritePromise(ballot(rng))
        case 1:
            return WriteDecided(number(rng), entry(rng))
        case 2:
            return WriteDecidedThrough(watermark(rng))
        case _:
            return WriteAccepted(number(rng), ballot(rng), entry(rng))


def history(rng: Random, count: int, data_bytes_max: int = 300) -> list[Write]:
    """Writes in an order in which a server may give them."""
    writes: list[Write] = []
    slot = through = 0
    round_ = 1
    for _ in range(count):
        match rng.randrange(8):
            case 0:
                round_ += rng.randint(0, 2)
                writes.append(WritePromise(Ballot(round_, 7)))
            case 1 if slot > through:
                through = rng.randint(through + 1, slot)
                writes.append(WriteDecidedThrough(through))
            case 2:
                slot += 1
                writes.append(
                    WriteDecided(slot, ConfigChange(configuration(rng)) if rng.random() < 0.3 else Noop())
                )
            case _:
                slot += 1
                data = bytes if rng.random() < 0.2 else rng.randbytes
                writes.append(
                    WriteAccepted(slot, Ballot(round_, 7), Batch(data(rng.randint(0, data_bytes_max))))
                )
    return writes
