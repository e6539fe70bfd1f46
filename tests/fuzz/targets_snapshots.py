"""What comes from snapshots, which another server may have made and sent."""

from collections.abc import Iterator
from random import Random
from zlib import crc32

from paxos_rsm.codec.frames import FrameCodec, encode_frame, register_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines import session_snapshots
from paxos_rsm.machines.frames import Frame
from paxos_rsm.machines.kv import snapshots
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.snapshots import MAGIC as KV_MAGIC
from paxos_rsm.machines.kv.types import SetQuota
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.machines.slices import SliceReader, cut, sealed
from tests.fuzz import values
from tests.fuzz.target import Target, require


def _chunks(data: bytes) -> Iterator[bytes]:
    """``data`` cut anyhow, but the same way each time."""
    return cut([data], 1 + crc32(data) % (len(data) // 4 + 97))


def _sealed_again(data: bytes) -> bytes:
    """With the right checksum at the end."""
    return data[:-4] + crc32(data[:-4]).to_bytes(4, "big")


# ---- the key-value store -------------------------------------------------------------------------------------


def _store(rng: Random) -> KeyValueMachine:
    machine = KeyValueMachine(KvCodec())
    for _ in range(rng.choice((0, 3, 12))):
        machine.execute(values.logged_command(rng))
    return machine


def _make_store(rng: Random) -> tuple[bytes, bytes]:
    machine = _store(rng)
    if rng.random() < 0.2:
        # As the version before wrote it: it had no quota.
        machine.execute(SetQuota(0))
        data = b"".join(machine.snapshot())
        more = len(snapshots.MAGIC) + snapshots.HEADER.size
        older = snapshots.MAGIC_2 + data[len(snapshots.MAGIC) : more] + data[more + snapshots.MORE.size :]
        return machine.digest(), _sealed_again(older)
    return machine.digest(), b"".join(machine.snapshot())


def _restore_store(data: bytes) -> bytes:
    machine = KeyValueMachine(KvCodec())
    machine.restore(_chunks(data))
    machine._store.require_invariants()
    digest = machine.digest()
    again = KeyValueMachine(KvCodec())
    again.restore(machine.snapshot())
    require(again.digest() == digest, "a snapshot of what was restored restores another state")
    machine.apply(encode_command(values.PUT_A), values.AT)
    machine._store.require_invariants()
    return digest


# ---- sessions around it --------------------------------------------------------------------------------------


def _make_sessions(rng: Random) -> tuple[bytes, bytes]:
    machine = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
    machine.apply_slot(1, [register_frame(rng.getrandbits(64), 1_000) for _ in range(rng.randint(0, 3))])
    for slot in range(2, rng.randint(2, 5)):
        frames = []
        for each in machine.sessions():
            commands = [encode_command(values.logged_command(rng)) for _ in range(rng.randint(0, 3))]
            received = rng.randint(each.received_below, each.last_seq + 1)
            frames.append(encode_frame(Frame(each.session, each.last_seq + 1, received, commands)))
        machine.apply_slot(slot, frames)
    data = b"".join(machine.snapshot())
    if rng.random() < 0.2:
        # As the version before wrote it.
        running = len(session_snapshots.MAGIC) + session_snapshots.HEADER.size
        head = session_snapshots.MAGIC_1 + data[len(session_snapshots.MAGIC) : running]
        data = _sealed_again(head + data[running + session_snapshots.RUNNING.size :])
    return machine.digest(), data


def _mend_sessions(data: bytes) -> bytes:
    """The store's own checksum and the length of its slice, where a snapshot is small; then the outer checksum."""
    at = data.find(KV_MAGIC)
    if at >= 4 and len(data) >= at + len(KV_MAGIC) + 16:
        inner = data[at:-16]
        head = data[: at - 4] + len(inner).to_bytes(4, "big")
        data = head + inner + data[-16:-12] + crc32(inner).to_bytes(4, "big") + data[-8:]
    return _sealed_again(data)


def _restore_sessions(data: bytes) -> bytes:
    machine = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
    machine.restore(_chunks(data))
    digest = machine.digest()
    again = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
    again.restore(machine.snapshot())
    require(again.digest() == digest, "a snapshot of what was restored restores another state")
    slot = machine.applied_slot + 1
    frames = [encode_frame(Frame(s.session, s.last_seq + 1, 1, [b"x"])) for s in machine.sessions()[:20]]
    machine.apply_slot(slot, [register_frame(1, 1_000), *frames])
    machine.digest()
    return digest


# ---- the stream ----------------------------------------------------------------------------------------------


def _make_stream(rng: Random) -> tuple[list[bytes], bytes]:
    """Strings after their lengths of one byte, sealed."""
    parts = [rng.randbytes(rng.randint(1, 60)) for _ in range(rng.randint(0, 8))]
    data = b"".join([bytes((len(part),)) + part for part in parts])
    return parts, b"".join(sealed([data + b"\0"], rng.randint(1, 50)))


def _read_stream(data: bytes) -> list[bytes]:
    reader = SliceReader(_chunks(data), "the test")
    parts = []
    while length := reader.read(1)[0]:
        parts.append(reader.read(length))
    reader.finish()
    return parts


TARGETS = (
    Target(
        "kv-snapshot",
        (
            "machines.kv.machine:KeyValueMachine.restore",
            "machines.kv.snapshots:read",
            "machines.kv.snapshots:_records",
        ),
        _make_store,
        _restore_store,
        (MachineFailed,),
        is_proto=False,
        mend=_sealed_again,
    ),
    Target(
        "session-snapshot",
        ("machines.sessions:SessionMachine.restore", "machines.session_snapshots:read_session"),
        _make_sessions,
        _restore_sessions,
        (MachineFailed,),
        is_proto=False,
        mend=_mend_sessions,
    ),
    Target(
        "slices",
        ("machines.slices:SliceReader.finish",),
        _make_stream,
        _read_stream,
        (MachineFailed,),
        is_proto=False,
        mend=_sealed_again,
    ),
)
