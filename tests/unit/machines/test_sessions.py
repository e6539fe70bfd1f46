"""Sessions, told as stories: what the log holds, and what every server answers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.codec.frames import FrameCodec, commands_frame, register_frame, timeouts_frame
from paxos_rsm.errors import InvariantViolation, MachineFailed
from paxos_rsm.machines.base import Position, Timeout, Timer
from paxos_rsm.machines.frames import (
    Ended,
    Executed,
    Expire,
    Expired,
    Frame,
    Gap,
    Overloaded,
    Refused,
    Register,
    Registered,
    TimedOut,
)
from paxos_rsm.machines.sessions import SessionInfo, SessionMachine, registration_slot
from tests.unit.machines.helpers import BatchDiary, Diary, Log, TimedDiary

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=[Diary, BatchDiary])
def diary(request: pytest.FixtureRequest) -> Diary:
    made: Diary = request.param()
    return made


# ---- registration ----------------------------------------------------------------------------------------------


def test_a_session_is_numbered_by_its_place_in_the_log() -> None:
    log = Log(Diary())
    log.slot()
    assert log.slot(b"\xff", register_frame(5, 1_000), register_frame(6, 2_000))[1:] == [
        Registered(2 << 16 | 1, 5, 1_000),
        Registered(2 << 16 | 2, 6, 2_000),
    ]
    assert log.sessions.session_count == 2
    assert log.sessions.sessions() == [
        SessionInfo(2 << 16 | 1, 0, 1, 1_000, 2),
        SessionInfo(2 << 16 | 2, 0, 1, 2_000, 2),
    ]


def test_a_session_registered_twice_is_two_sessions() -> None:
    """A server that sends Register again for want of an answer goes on with one, and the other expires."""
    log = Log(Diary())
    assert log.register(nonce=9) != log.register(nonce=9)


def test_a_frame_too_far_back_in_its_slot_cannot_register() -> None:
    log = Log(Diary())
    outcomes = log.slot(*[commands_frame(1, 1, 1, [])] * 0xFFFF, register_frame(1, 1), register_frame(2, 2))
    assert outcomes[0xFFFF] == Registered(1 << 16 | 0xFFFF, 1, 1)
    assert isinstance(outcomes[0x10000], Refused)


# ---- commands --------------------------------------------------------------------------------------------------


def test_commands_take_effect_in_order(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    first = log.submit(session, 1, b"a", b"b")
    second = log.submit(session, 3, b"c")
    assert isinstance(first, Executed)
    assert isinstance(second, Executed)
    assert (first.next_seq, second.next_seq) == (3, 4)
    assert list(log.encoded(first)) == [(1, b"page 1"), (2, b"page 2")]
    assert list(log.encoded(second)) == [(3, b"page 3")]
    assert diary.commands == ["a", "b", "c"]


def test_a_duplicate_is_answered_with_the_first_result_and_not_executed(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b")
    log.submit(session, 3, b"c")
    again = log.submit(session, 1, b"a", b"b")
    assert list(log.encoded(again)) == [(1, b"page 1"), (2, b"page 2")]
    assert diary.commands == ["a", "b", "c"]


def test_a_frame_cut_differently_on_retry_is_executed_once(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b", b"c")
    half_new = log.submit(session, 2, b"b", b"c", b"d", b"e")
    assert list(log.encoded(half_new)) == [
        (2, b"page 2"),
        (3, b"page 3"),
        (4, b"page 4"),
        (5, b"page 5"),
    ]
    inner = log.submit(session, 4, b"d")
    assert list(log.encoded(inner)) == [(4, b"page 4")]
    assert diary.commands == ["a", "b", "c", "d", "e"]


def test_a_gap_is_answered_and_nothing_of_it_kept(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a")
    assert log.submit(session, 3, b"c", b"d") == Gap(session, 3, 2)
    assert diary.commands == ["a"]
    assert log.sessions.session(session) == SessionInfo(session, 1, 1, 10_000, 3)
    # Sent again from the gap on: in another cut, all of it is new.
    log.submit(session, 2, b"b", b"c", b"d")
    assert diary.commands == ["a", "b", "c", "d"]


def test_two_frames_of_one_slot_the_first_of_which_was_lost() -> None:
    diary = Diary()
    log = Log(diary)
    session = log.register()
    outcomes = log.slot(
        commands_frame(session, 2, 1, [b"b"]),
        commands_frame(session, 1, 1, [b"a"]),
        commands_frame(session, 2, 1, [b"b"]),
    )
    assert outcomes[0] == Gap(session, 2, 1)
    assert [type(outcome) for outcome in outcomes[1:]] == [Executed, Executed]
    assert diary.commands == ["a", "b"]


def test_sessions_do_not_see_each_other() -> None:
    diary = Diary()
    log = Log(diary)
    one, other = log.register(), log.register()
    log.submit(one, 1, b"a")
    log.submit(other, 1, b"b")
    assert diary.commands == ["a", "b"]


def test_an_unknown_session_is_told_so(diary: Diary) -> None:
    log = Log(diary)
    assert log.submit(77, 3, b"a") == Expired(77, 3)
    assert log.submit(0, 1, b"a") == Expired(0, 1)
    assert diary.commands == []


def test_positions_count_every_command_of_the_slot_executed_or_not(diary: Diary) -> None:
    log = Log(diary)
    one, other = log.register(), log.register()
    log.submit(one, 1, b"a", b"b")
    log.slot(
        commands_frame(99, 1, 1, [b"of nobody"] * 3),
        b"\xff",
        commands_frame(one, 1, 1, [b"a", b"b", b"c"]),
        commands_frame(one, 9, 1, [b"a gap"]),
        commands_frame(other, 1, 1, [b"d", b"e"]),
    )
    assert diary.pages == [("a", 3, 0), ("b", 3, 1), ("c", 4, 5), ("d", 4, 7), ("e", 4, 8)]


def test_only_what_is_new_reaches_a_batch_machine_and_nothing_is_encoded() -> None:
    diary = BatchDiary()
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b")
    log.submit(session, 1, b"a", b"b")
    log.submit(session, 2, b"b", b"c", b"d")
    assert diary.batches == [[b"a", b"b"], [b"c", b"d"]]
    assert diary.encoded == 0


# ---- results ---------------------------------------------------------------------------------------------------


def test_results_that_the_client_has_are_forgotten_and_not_owed_again(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b", b"c")
    log.submit(session, 4, b"d", received_below=3)
    kept = log.sessions.kept_results(session)
    assert kept is not None
    assert list(log.encoded(kept)) == [(3, b"page 3"), (4, b"page 4")]
    late = log.submit(session, 1, b"a", b"b", b"c")
    assert list(log.encoded(late)) == [(3, b"page 3")]
    gone = log.submit(session, 1, b"a")
    assert isinstance(gone, Executed)
    assert list(gone.results) == []
    assert diary.commands == ["a", "b", "c", "d"]


def test_received_below_never_goes_back_nor_beyond_what_was_executed(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b", received_below=100)  # nothing was executed when it came
    info = log.sessions.session(session)
    assert info is not None
    assert info.received_below == 1
    log.submit(session, 3, received_below=2**64 - 1)
    log.submit(session, 3, received_below=1)
    info = log.sessions.session(session)
    assert info is not None
    assert info.received_below == 3
    kept = log.sessions.kept_results(session)
    assert kept == Executed(session, 3, [], 3, 3)


def test_kept_results_stay_as_they_were_asked_for(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b")
    kept = log.sessions.kept_results(session)
    log.submit(session, 3, b"c", received_below=3)
    assert kept is not None
    assert list(log.encoded(kept)) == [(1, b"page 1"), (2, b"page 2")]
    assert log.sessions.kept_results(session + 1) is None
    assert log.sessions.session(session + 1) is None


def test_a_frame_without_commands_says_what_was_received_and_asks_what_is_missing(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a", b"b")
    assert log.submit(session, 4) == Gap(session, 4, 3)
    for first_seq in (0, 1, 3):
        assert log.submit(session, first_seq) == Executed(session, 3, (), 3, 1)
    assert log.submit(session, 50, received_below=2) == Gap(session, 50, 3)
    info = log.sessions.session(session)
    assert info is not None
    assert info.received_below == 2


def test_a_session_that_never_says_what_it_has_received_is_stopped_and_can_go_on(diary: Diary) -> None:
    log = Log(diary, session_results_max=3)
    session = log.register()
    log.submit(session, 1, b"a", b"b")
    refused = log.submit(session, 3, b"c", b"d")
    assert refused == Overloaded(session, 3, 3)
    assert diary.commands == ["a", "b"]
    # As long as it says nothing: a frame that fits is executed, and duplicates are answered.
    log.submit(session, 3, b"c")
    assert log.submit(session, 4, b"d") == Overloaded(session, 4, 4)
    assert list(log.encoded(log.submit(session, 2, b"b"))) == [(2, b"page 2")]
    # The word on what was received counts before the limit does, also in the frame that it lets in.
    log.submit(session, 4, b"d", b"e", received_below=3)
    assert diary.commands == ["a", "b", "c", "d", "e"]


def test_a_frame_larger_than_the_limit_is_never_executed(diary: Diary) -> None:
    log = Log(diary, session_results_max=3)
    session = log.register()
    assert log.submit(session, 1, b"a", b"b", b"c", b"d") == Overloaded(session, 1, 1)
    assert diary.commands == []


# ---- the end of sessions ---------------------------------------------------------------------------------------


def test_an_expired_session_gets_an_error_and_nothing_is_executed(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a")
    assert log.expire(session, 1) == Ended(session, 1, void=False)
    assert log.submit(session, 2, b"b") == Expired(session, 2)
    assert log.submit(session, 1, b"a") == Expired(session, 1)  # not even the result of the first
    assert diary.commands == ["a"]
    assert log.sessions.session_count == 0


def test_an_expire_that_the_session_has_outrun_is_void(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    log.submit(session, 1, b"a")
    log.submit(session, 2, b"b")
    assert log.expire(session, 1) == Ended(session, 1, void=True)
    assert log.expire(session, 3) == Ended(session, 3, void=True)
    assert isinstance(log.submit(session, 3, b"c"), Executed)
    assert log.expire(session, 3) == Ended(session, 3, void=False)
    assert log.expire(session, 3) == Ended(session, 3, void=True)  # it is not there any more


def test_a_session_that_did_nothing_expires_at_last_seq_0() -> None:
    log = Log(Diary())
    session = log.register()
    assert log.expire(session, 0) == Ended(session, 0, void=False)


def test_the_last_active_slot_follows_every_frame_of_the_session() -> None:
    log = Log(Diary())
    session = log.register()
    for _ in range(2):
        log.submit(session, 9, b"a gap")
    info = log.sessions.session(session)
    assert info is not None
    assert info.last_active_slot == 3


# ---- bad frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff",
        Frame(0x10000, 0, 1, [b"a"]),
        Frame(0x10000, 1, 1, [b"a"], register=Register(1, 1)),
        Frame(register=Register(1, 1), expire=Expire(0x10000, 0)),
        Frame(0x10000, 1, 1, [b"a"], expire=Expire(0x10000, 0)),
    ],
    ids=[
        "garbage",
        "sequence number 0",
        "register and commands",
        "register and expire",
        "expire and commands",
    ],
)
def test_a_frame_that_makes_no_sense_is_refused_and_changes_nothing(frame: bytes | Frame) -> None:
    class Whole(FrameCodec):
        """Passes on what a client could send, but encode_frame would not build."""

        @staticmethod
        def decode(data: bytes) -> Frame:
            return frame if data == b"?" else FrameCodec.decode(data)  # type: ignore[return-value]

    diary = Diary()
    sessions = SessionMachine(diary, Whole())
    sessions.apply_slot(1, [register_frame(1, 1)])
    assert sessions.session_count == 1
    (outcome,) = sessions.apply_slot(2, [frame if isinstance(frame, bytes) else b"?"])
    assert isinstance(outcome, Refused)
    assert sessions.session_count == 1
    assert diary.commands == []


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_arbitrary_bytes_are_answered(frames: list[bytes]) -> None:
    log = Log(Diary())
    assert len(log.slot(*frames)) == len(frames)
    assert log.sessions.applied_slot == 1


# ---- slots -----------------------------------------------------------------------------------------------------


def test_slots_come_in_order_each_once() -> None:
    log = Log(Diary())
    with pytest.raises(InvariantViolation, match="slot 2 was to be applied after slot 0"):
        log.sessions.apply_slot(2, [])
    assert log.sessions.apply_slot(1, []) == []
    with pytest.raises(InvariantViolation, match="slot 1 was to be applied after slot 1"):
        log.sessions.apply_slot(1, [])
    assert log.sessions.applied_slot == 1


# ---- broken machines -------------------------------------------------------------------------------------------


def test_an_exception_names_the_command_and_what_to_do() -> None:
    log = Log(Diary())
    session = log.register()
    with pytest.raises(MachineFailed) as failed:
        log.submit(session, 1, b"a", b"boom", b"c")
    assert str(failed.value).startswith(
        "the state machine tests.unit.machines.helpers.Diary failed at slot 2, command 1 of that slot: "
        "it raised ZeroDivisionError: the user's own mistake. "
    )
    assert "mend the class" in str(failed.value)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_a_batch_machine_is_told_apart_as_far_as_it_can_be() -> None:
    log = Log(BatchDiary())
    session = log.register()
    with pytest.raises(MachineFailed, match="slot 2, one of commands 0 to 2 of that slot"):
        log.submit(session, 1, b"a", b"boom", b"c")


def test_half_a_slot_reaches_neither_readers_nor_snapshots(diary: Diary) -> None:
    log = Log(diary)
    session = log.register()
    with pytest.raises(MachineFailed):
        log.submit(session, 1, b"a", b"boom")
    assert log.sessions.applied_slot == 1
    sessions = log.sessions
    for use in (sessions.snapshot, sessions.digest, lambda: sessions.query(b"")):
        with pytest.raises(MachineFailed, match="failed at slot 2"):
            use()
    with pytest.raises(MachineFailed, match="failed at slot 2"):
        sessions.apply_slot(2, [])


def test_results_that_are_none_stop_the_server() -> None:
    class Forgetful(Diary):
        def apply(self, command: bytes, at: Position) -> bytes:
            return None  # type: ignore[return-value]

    class Short(BatchDiary):
        def apply_batch(self, commands: object, at: Position) -> list[object]:
            return []

    log = Log(Forgetful())
    with pytest.raises(MachineFailed, match="gave NoneType where bytes are due"):
        log.submit(log.register(), 1, b"a")
    log = Log(Short())
    with pytest.raises(MachineFailed, match="gave 0 results for 2 commands"):
        log.submit(log.register(), 1, b"a", b"b")


def test_a_slot_that_is_interrupted_is_not_applied_twice() -> None:
    """Ctrl-C in the middle of a slot is no failure of the machine, but its state is half a slot all the same."""

    class Interrupted(Diary):
        def apply(self, command: bytes, at: Position) -> bytes:
            if self.pages:
                raise KeyboardInterrupt
            return super().apply(command, at)

    log = Log(Interrupted())
    session = log.register()
    with pytest.raises(KeyboardInterrupt):
        log.submit(session, 1, b"a", b"b")
    with pytest.raises(MachineFailed, match="slot 2 was applied in part only"):
        log.sessions.snapshot()
    with pytest.raises(MachineFailed, match="slot 2 was applied in part only"):
        log.submit(session, 1, b"a", b"b")


def test_a_query_that_raises_breaks_nothing() -> None:
    class Shy(Diary):
        def query(self, request: bytes) -> bytes:
            raise KeyError(request)

    log = Log(Shy())
    with pytest.raises(KeyError):
        log.sessions.query(b"?")
    log.slot()


# ---- timers ----------------------------------------------------------------------------------------------------


def test_a_time_out_reaches_the_machine_where_it_stands_in_the_log() -> None:
    log = Log(diary := TimedDiary())
    session = log.register()
    log.slot(commands_frame(session, 1, 1, [b"a"]))
    assert log.sessions.take_timers() == [Timer(1, 1, 1)]
    assert log.sessions.is_armed(1)
    frames = (commands_frame(session, 2, 1, [b"b", b"c"]), timeouts_frame([Timeout(1, 1), Timeout(1, 3)]))
    assert log.slot(*frames)[1] == TimedOut(2)
    assert diary.pages[-1] == ("timer 1 ran out", 3, 2)
    assert diary.commands == ["a", "b", "c", "timer 1 ran out"]


def test_a_machine_without_timers_is_never_asked_for_them() -> None:
    log = Log(Diary())
    assert log.sessions.take_timers() == ()
    assert not log.sessions.is_armed(1)
    assert log.slot(timeouts_frame([Timeout(1, 1)])) == [Refused("the state machine has no timers")]


def test_a_machine_that_raises_out_of_a_time_out_is_broken() -> None:
    log = Log(TimedDiary())
    with pytest.raises(
        MachineFailed, match="raised ZeroDivisionError: the user's own mistake out of time_out"
    ):
        log.slot(timeouts_frame([Timeout(13, 1)]))
    with pytest.raises(MachineFailed):
        log.slot()


def test_a_session_says_which_slot_registered_it() -> None:
    assert registration_slot(7 << 16 | 3) == 7
