"""Sessions, the user's state and the applied slot as one: in a snapshot, in a digest, on every server."""

import gc
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

from paxos_rsm.codec.frames import FrameCodec, commands_frame, expire_frame, register_frame
from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.machines import sessions
from paxos_rsm.machines.frames import Executed
from paxos_rsm.machines.session_snapshots import HEADER, MAGIC, MAGIC_1, RESULTS_AT_ONCE, RUNNING, SESSION
from paxos_rsm.machines.sessions import DIGEST_SLOTS, DIGESTS_MAX, SESSION_RESULTS_MAX
from paxos_rsm.machines.slices import Slices
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
        assert machine.got == [b"one", b"three"]


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
    data += RUNNING.pack(True, bytes(16), 0, 0)
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


# ---- views of sessions that go on ------------------------------------------------------------------------------


def test_views_show_their_moment_however_late_and_slowly_they_are_read() -> None:
    log = Log(BatchDiary())
    registered = [log.register() for _ in range(3)]
    views = []
    seqs = dict.fromkeys(registered, 1)
    for turn in range(12):
        for session in registered[: 1 + turn % 3]:
            log.submit(session, seqs[session], b"x", received_below=max(1, seqs[session] - 2))
            seqs[session] += 1
        if turn % 2:
            views.append((log.sessions.snapshot(), b"".join(log.sessions.snapshot())))
        if turn == 6:
            last = registered.pop()
            log.expire(last, seqs[last] - 1)
            log.register()
    for view, expected in reversed(views):
        assert b"".join(view) == expected


def test_a_view_of_what_was_there_before_a_restore_is_not_touched_by_what_comes_after() -> None:
    old, session = storied(BatchDiary())
    new, _ = storied(BatchDiary())
    for _ in range(4):
        new.slot()
    expected = b"".join(old.sessions.snapshot())
    view = old.sessions.snapshot()
    old.sessions.restore(new.sessions.snapshot())
    old.submit(session, 5, b"other")
    assert b"".join(view) == expected


def test_what_a_view_holds_is_let_go_with_it() -> None:
    class Closing(Diary):
        closed = 0

        def snapshot(self) -> Slices:
            return Slices(iter([b"one", b"two"]), self.close)

        def close(self) -> None:
            self.closed += 1

    machine = Closing()
    log, session = storied(machine)
    ended, closed, dropped = (log.sessions.snapshot() for _ in range(3))
    next(closed)
    next(dropped)
    assert len(list(ended)) == 2
    closed.close()
    assert list(closed) == []
    del dropped
    gc.collect()
    assert machine.closed >= 3
    log.submit(session, 5, b"e")
    assert not any(view.sessions for view in log.sessions._views)


def test_many_results_come_in_many_slices_with_pauses_between() -> None:
    log = Log(BatchDiary())
    session = log.register()
    log.submit(session, 1, *[b"x"] * (5 * RESULTS_AT_ONCE))
    slices = list(log.sessions.snapshot())
    assert slices.count(b"") == 5
    copy = Log(BatchDiary())
    copy.sessions.restore(slices)
    assert copy.sessions.digest() == log.sessions.digest()


# ---- the running digest ----------------------------------------------------------------------------------------


class Checked(BatchDiary):
    """Says how many pages were written since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def running_digest(self) -> bytes:
        new, self.asked = self.pages[self.asked :], len(self.pages)
        return repr(new).encode()

    def restore(self, chunks: Iterable[bytes]) -> None:
        super().restore(chunks)
        # Its snapshot is taken where nothing is uncounted.
        self.asked = len(self.pages)


def written(log: Log, session: int, slots: int, text: bytes = b"x") -> None:
    info = log.sessions.session(session)
    if info is None:
        raise LookupError(session)
    for seq in range(info.last_seq + 1, info.last_seq + 1 + slots):
        log.submit(session, seq, text, received_below=max(1, seq - 3))


@pytest.mark.parametrize("kind", [Diary, BatchDiary, Checked])
def test_equal_logs_have_equal_digests_and_others_differ_from_there_on(kind: type[Diary]) -> None:
    one, same, other = Log(kind()), Log(kind()), Log(kind())
    for log in (one, same, other):
        session = log.register()
        written(log, session, 2 * DIGEST_SLOTS)
        if log is other:
            # Its state is another, though its log is the same.
            other.sessions._machine.pages.append(("wrong", 0, 0))  # type: ignore[attr-defined]
        written(log, session, 2 * DIGEST_SLOTS)
    digests = dict(one.sessions.digests())
    assert list(digests) == [DIGEST_SLOTS * nth for nth in (1, 2, 3, 4)]
    assert same.sessions.digests() == one.sessions.digests()
    wrong = dict(other.sessions.digests())
    assert [slot for slot in digests if wrong[slot] != digests[slot]] == [3 * DIGEST_SLOTS, 4 * DIGEST_SLOTS]


def test_slots_without_any_command_are_linked_too_and_few_links_are_kept() -> None:
    log = Log(Diary())
    for _ in range((DIGESTS_MAX + 3) * DIGEST_SLOTS):
        log.slot()
    digests = log.sessions.digests()
    assert len(set(digests)) == len(digests) == DIGESTS_MAX
    assert digests[-1][0] == (DIGESTS_MAX + 3) * DIGEST_SLOTS


@pytest.mark.parametrize("kind", [Diary, BatchDiary])
def test_a_snapshot_takes_the_chain_along(kind: type[Diary]) -> None:
    one, copy = Log(kind()), Log(kind())
    session = one.register()
    written(one, session, DIGEST_SLOTS + 20)
    copy.sessions.restore(one.sessions.snapshot())
    assert copy.sessions.digests() == one.sessions.digests()[-1:]
    for log in (one, copy):
        log.slot()
        written(log, session, DIGEST_SLOTS)
    assert copy.sessions.digests() == one.sessions.digests()[-2:]
    # And where nothing at all comes before the next link.
    again = Log(kind())
    again.sessions.restore(one.sessions.snapshot())
    for log in (one, again):
        for _ in range(DIGEST_SLOTS):
            log.slot()
    assert again.sessions.digests()[-1] == one.sessions.digests()[-1]


def of_version_1(log: Log) -> bytes:
    data = b"".join(log.sessions.snapshot())
    running = len(MAGIC) + HEADER.size
    data = MAGIC_1 + data[len(MAGIC) : running] + data[running + RUNNING.size : -4]
    return data + crc32(data).to_bytes(4, "big")


def test_after_a_snapshot_without_the_chain_it_is_known_again_when_it_starts_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "CHAIN_SLOTS", 4 * DIGEST_SLOTS)
    one, copy = Log(Diary()), Log(Diary())
    session = one.register()
    written(one, session, DIGEST_SLOTS + 5)
    copy.sessions.restore([of_version_1(one)])
    assert copy.sessions.digest() == one.sessions.digest()
    for log in (one, copy):
        written(log, session, DIGEST_SLOTS)
    assert (copy.sessions.digests(), len(one.sessions.digests())) == ((), 2)
    for log in (one, copy):
        written(log, session, 4 * DIGEST_SLOTS)
    assert [slot // DIGEST_SLOTS for slot, _ in one.sessions.digests()] == [1, 2, 3, 5, 6]
    assert copy.sessions.digests() == one.sessions.digests()[-2:]


def test_a_machine_that_raises_when_it_is_asked_is_broken() -> None:
    class Broken(Checked):
        def running_digest(self) -> bytes:
            raise ZeroDivisionError("the user's own mistake")

    log = Log(Broken())
    for _ in range(DIGEST_SLOTS - 1):
        log.slot()
    with pytest.raises(MachineFailed, match="out of running_digest"):
        log.slot()


def test_a_restored_state_has_its_digest_at_the_slot_that_it_is_of_however_far_apart_they_are() -> None:
    one, other = (sessions.SessionMachine(Diary(), FrameCodec(), digest_slots=8) for _ in range(2))
    for slot in range(1, 21):
        one.apply_slot(slot, ())
    assert [slot for slot, _ in one.digests()] == [8, 16]
    other.restore(one.snapshot())
    assert list(other.digests()) == list(one.digests())[-1:]
    for each in (one, other):
        for slot in range(21, 25):
            each.apply_slot(slot, ())
    assert list(other.digests()) == list(one.digests())[-2:]
