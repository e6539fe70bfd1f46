"""Sessions, the user's state and the applied slot as one: in a snapshot, in a digest, on every server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.codec.frames import commands_frame, expire_frame, register_frame
from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.machines.frames import Executed
from paxos_rsm.machines.sessions import HEADER, MAGIC, SESSION, SESSION_RESULTS_MAX
from tests.unit.machines.helpers import BatchDiary, Diary, Log

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=[Diary, BatchDiary])
def diary(request: pytest.FixtureRequest) -> Diary:
    made: Diary = request.param()
    return made


# ---- snapshots -------------------------------------------------------------------------------------------------


def storied(diary: Diary) -> tuple[Log, int]:
    """A log after some slots: a session with kept and forgotten results, an ended one, and one that is new."""
    log = Log(diary)
    session = log.register()
    ended = log.register()
    log.submit(session, 1, b"a", b"b", b"c")
    log.submit(session, 4, b"d", received_below=3)
    log.expire(ended, 0)
    log.register(timeout_ms=5)
    return log, session


def test_a_snapshot_has_sessions_state_and_slot_as_one(diary: Diary) -> None:
    log, session = storied(diary)
    copy = Log(type(diary)())
    copy.sessions.restore(log.sessions.snapshot())
    assert copy.sessions.applied_slot == log.sessions.applied_slot == 6
    assert copy.sessions.sessions() == log.sessions.sessions()
    assert copy.sessions.digest() == log.sessions.digest()
    assert copy.sessions.query(b"") == b"4 pages"
    # And it goes on as if nothing had been: kept results are the first ones, also next to new ones.
    for each in (log, copy):
        again = each.submit(session, 3, b"c", b"d", b"e")
        assert list(each.encoded(again)) == [(3, b"page 3"), (4, b"page 4"), (5, b"page 5")]
        kept = each.sessions.kept_results(session)
        assert kept is not None
        assert list(each.encoded(kept)) == list(each.encoded(again))
        assert [each.sessions.encode_result(result) for result in kept.results] == [
            b"page 3",
            b"page 4",
            b"page 5",
        ]
    assert copy.sessions.digest() == log.sessions.digest()
    assert b"".join(copy.sessions.snapshot()) == b"".join(log.sessions.snapshot())


def test_a_view_is_not_changed_by_later_slots(diary: Diary) -> None:
    log, session = storied(diary)
    digest = log.sessions.digest()
    view = log.sessions.snapshot()
    log.submit(session, 5, b"e", received_below=5)
    log.register()
    copy = Log(type(diary)())
    copy.sessions.restore(view)
    assert copy.sessions.digest() == digest != log.sessions.digest()


def test_a_machine_whose_snapshot_is_a_generator_is_run_to_its_end_at_once() -> None:
    class Lazy(Diary):
        def snapshot(self) -> Iterator[bytes]:
            for page in self.pages:
                yield json.dumps(page).encode()

    log, session = storied(Lazy())
    digest = log.sessions.digest()
    view = log.sessions.snapshot()
    log.submit(session, 5, b"e")
    copy = Log(Lazy())
    copy.sessions.restore(view)
    assert copy.sessions.digest() == digest


def test_a_machine_gets_its_slices_as_it_gave_them_however_the_snapshot_is_cut() -> None:
    class Fussy(Diary):
        def snapshot(self) -> Iterable[bytes]:
            return [b"one", b"", b"three"]

        def restore(self, chunks: Iterable[bytes]) -> None:
            self.got = list(chunks)

    log, _ = storied(Fussy())
    stream = b"".join(log.sessions.snapshot())
    for size in (1, 7, len(stream)):
        machine = Fussy()
        copy = Log(machine)
        copy.sessions.restore([stream[at : at + size] for at in range(0, len(stream), size)])
        assert machine.got == [b"one", b"", b"three"]


def test_a_machine_that_reads_only_a_part_of_its_snapshot_is_restored_all_the_same() -> None:
    class Hasty(Diary):
        def restore(self, chunks: Iterable[bytes]) -> None:
            self.first = next(iter(chunks))

    log, _ = storied(Hasty())
    copy = Log(Hasty())
    copy.sessions.restore(log.sessions.snapshot())
    assert copy.sessions.applied_slot == 6


def test_a_snapshot_never_takes_slots_back() -> None:
    log, _ = storied(Diary())
    old = list(log.sessions.snapshot())
    log.slot()
    with pytest.raises(InvariantViolation, match="slot 6 was to replace the state of slot 7"):
        log.sessions.restore(old)
    log.slot()  # and nothing was touched


def test_a_snapshot_of_a_cluster_with_another_limit_is_refused() -> None:
    log, _ = storied(Diary())
    other = Log(Diary(), session_results_max=5)
    with pytest.raises(MachineFailed, match="session_results_max 65536 and this server has 5"):
        other.sessions.restore(log.sessions.snapshot())


def test_a_damaged_snapshot_is_refused_and_nothing_is_served_from_it() -> None:
    log, _ = storied(Diary())
    stream = b"".join(log.sessions.snapshot())
    for at in range(len(stream)):
        damaged = stream[:at] + bytes([stream[at] ^ 0x10]) + stream[at + 1 :]
        for broken in (damaged, stream[:at]):
            copy = Log(Diary())
            with pytest.raises((MachineFailed, InvariantViolation)):
                copy.sessions.restore([broken])
            # Either nothing was touched, or nothing is served.
            try:
                answer = copy.sessions.query(b"")
            except MachineFailed:
                answer = b"0 pages"
            assert answer == b"0 pages"
            assert copy.sessions.applied_slot == 0


SOUND = (
    1 << 16,
    3,
    3,
    1,
    10_000,
    0,
)  # number, next_seq, received_below, last active slot, timeout_ms, results


def snapshot_of(applied_slot: int, sessions: list[tuple[int, ...]]) -> bytes:
    """A snapshot of these sessions around an empty machine, sound or not, with the right checksum."""
    data = MAGIC + HEADER.pack(applied_slot, SESSION_RESULTS_MAX, len(sessions))
    data += b"".join([SESSION.pack(*session) for session in sessions]) + b"\xff" * 4
    return data + crc32(data).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("applied_slot", "sessions"),
    [
        (5, [SOUND, SOUND]),  # one session twice
        (5, [(6 << 16, *SOUND[1:])]),  # registered after the snapshot
        (5, [(7, *SOUND[1:])]),  # registered before the log
        (5, [(*SOUND[:3], 6, *SOUND[4:])]),  # active after the snapshot
        (5, [(SOUND[0], 2**64 - 1, 2**64 - 1, *SOUND[3:])]),  # its next command would have no number
        (1 << 63, []),  # its next session would have no number
    ],
)
def test_a_snapshot_of_what_cannot_be_is_refused(applied_slot: int, sessions: list[tuple[int, ...]]) -> None:
    """Found by fuzzing: with the right checksum it was believed, and a later snapshot could not be packed."""
    log = Log(Diary())
    with pytest.raises(MachineFailed, match="cannot be restored"):
        log.sessions.restore([snapshot_of(applied_slot, sessions)])
    log.slot()  # nothing was touched


def test_the_snapshots_that_are_made_by_hand_here_are_sound() -> None:
    log = Log(Diary())
    log.sessions.restore([snapshot_of(5, [SOUND])])
    assert (log.sessions.applied_slot, log.sessions.session_count) == (5, 1)


def test_after_half_a_restore_a_whole_one_mends_it() -> None:
    log, _ = storied(Diary())
    stream = b"".join(log.sessions.snapshot())
    copy = Log(Diary())
    with pytest.raises(MachineFailed):
        copy.sessions.restore([stream[:-1]])
    with pytest.raises(MachineFailed, match="restored in part only"):
        copy.slot()
    copy.sessions.restore([stream])
    assert copy.sessions.digest() == log.sessions.digest()


def test_an_empty_machine_has_a_snapshot_too() -> None:
    log = Log(Diary())
    copy = Log(Diary())
    copy.sessions.restore(log.sessions.snapshot())
    assert copy.sessions.digest() == log.sessions.digest()


# ---- the same on every server ----------------------------------------------------------------------------------


def test_a_digest_tells_states_apart() -> None:
    digests = set()
    log = Log(Diary())
    digests.add(log.sessions.digest())
    session = log.register()
    digests.add(log.sessions.digest())
    log.submit(session, 1, b"a")
    digests.add(log.sessions.digest())
    log.submit(session, 2, received_below=2)
    digests.add(log.sessions.digest())
    log.slot()
    digests.add(log.sessions.digest())
    log.expire(session, 1)
    digests.add(log.sessions.digest())
    assert len(digests) == 6


HISTORY = st.lists(
    st.lists(
        st.one_of(
            st.builds(register_frame, st.integers(0, 9), st.just(100)),
            st.builds(expire_frame, st.sampled_from([65536, 65537, 131072]), st.integers(0, 4)),
            st.builds(
                commands_frame,
                st.sampled_from([65536, 65537, 131072]),
                st.integers(0, 6),
                st.integers(0, 6),
                st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4),
            ),
        ),
        max_size=4,
    ),
    max_size=8,
)


@given(HISTORY, st.integers(0, 8))
def test_a_server_that_restored_answers_like_one_that_applied_everything(
    history: list[list[bytes]], restored_after: int
) -> None:
    old = Log(BatchDiary(), session_results_max=4)
    new = Log(BatchDiary(), session_results_max=4)
    plain = Log(Diary(), session_results_max=4)
    for slot, frames in enumerate(history):
        if slot == restored_after:
            new = Log(BatchDiary(), session_results_max=4)
            new.sessions.restore(old.sessions.snapshot())
        answers = [
            [
                (*list(log.encoded(outcome)), outcome.next_seq) if isinstance(outcome, Executed) else outcome
                for outcome in log.slot(*frames)
            ]
            for log in (old, new, plain)
        ]
        assert answers[0] == answers[1] == answers[2]
    assert old.sessions.digest() == new.sessions.digest() == plain.sessions.digest()


SCRIPT = """
from paxos_rsm.codec.frames import FrameCodec, commands_frame, encode_frame, register_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, DeleteRange, Put, Txn
from paxos_rsm.machines.sessions import SessionMachine

machine = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
machine.apply_slot(1, [register_frame(1, 1), register_frame(2, 2)])
commands = [Put(b"key %d" % (n * 7 % 50), b"value") for n in range(200)]
commands += [DeleteRange(b"key 1", b"key 3"), Compact(150), Txn((), (Put(b"a"), Put(b"b")))]
machine.apply_slot(2, [commands_frame(65536, 1, 1, map(encode_command, commands))])
machine.apply_slot(3, [commands_frame(65537, 1, 1, map(encode_command, commands[::-1]))])
print(machine.digest().hex())
"""


def test_the_state_does_not_depend_on_the_seed_of_hashes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 32
