"""What is kept for an attached session, and when it is sent again."""

import pytest

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.errors import InvalidArgument, ResourceExhausted, SessionExpired, Unavailable
from paxos_rsm.machines.frames import Ended, Executed, Expire, Expired, Frame, Gap, Overloaded, Registered
from paxos_rsm.replica.local_sessions import (
    DOUBLINGS_MAX,
    MEND_PATIENCE_TICKS,
    LocalSession,
    LocalSessions,
)
from tests.unit.replica.harness import Sink

NUMBER = 5 << 16


@pytest.fixture
def sessions() -> LocalSessions:
    return LocalSessions(frame_bytes_max=100, pending_bytes_max=250, session_timeout_ms=4_000, tick_ms=100)


def opened(sessions: LocalSessions) -> tuple[LocalSession, Sink]:
    sink = Sink()
    session = sessions.register(sink, 77)
    sessions.outgoing.clear()
    sessions.applied(Registered(NUMBER, 77, 4_000))
    assert sink.session == NUMBER
    return session, sink


def take(sessions: LocalSessions) -> list[bytes]:
    out, sessions.outgoing = sessions.outgoing, []
    return out


def pass_ticks(sessions: LocalSessions, ticks: int, patience: int = 1000) -> list[tuple[int, Frame]]:
    """What goes out by itself in so many ticks, and at which of them."""
    said = []
    for tick in range(1, ticks + 1):
        sessions.tick(patience)
        for data in take(sessions):
            frame = decode_frame(data)
            assert isinstance(frame, Frame)
            said.append((tick, frame))
    return said


def test_a_registration_is_sent_again_until_it_is_seen(sessions: LocalSessions) -> None:
    sink = Sink()
    sessions.register(sink, 77)
    (first,) = take(sessions)
    for _ in range(3):
        sessions.tick(patience_ticks=3)
    (again,) = take(sessions)
    assert first == again
    sessions.applied(Registered(NUMBER, 77, 4_000))
    sessions.applied(Registered(6 << 16, 77, 4_000))  # the second, of the same name
    assert (sink.session, sink.next_seq) == (NUMBER, 1)
    for _ in range(3):
        sessions.tick(patience_ticks=3)
    assert take(sessions) == []


def test_a_frame_is_kept_until_it_is_applied_whole(sessions: LocalSessions) -> None:
    session, sink = opened(sessions)
    session.submit(b"x" * 10, 1, 3)
    assert take(sessions) == [b"x" * 10]
    sessions.applied(Executed(NUMBER, 1, [b"1"], 2))
    assert sessions.pending_bytes == 10
    sessions.applied(Executed(NUMBER, 1, [b"1", b"2", b"3"], 4))
    assert sessions.pending_bytes == 0
    assert sink.answers == {1: b"1", 2: b"2", 3: b"3"}


def test_a_new_leader_gets_everything_in_order_and_nothing_twice(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    for seq in (1, 2, 3):
        session.submit(b"%d" % seq, seq, 1)
    sessions.resend_all()
    assert take(sessions) == [b"1", b"2", b"3"]


def test_a_session_that_waits_long_asks_and_sends_nothing_again(sessions: LocalSessions) -> None:
    """What is only late must not come to stand in the log once for each time that somebody lost patience."""
    session, _ = opened(sessions)
    session.timeout_ms = 1_000_000
    for seq in (1, 2, 3):
        session.submit(b"%d" % seq, seq, 1)
    take(sessions)
    said = pass_ticks(sessions, 5 + 10 + 20 + 40 + 40, patience=5)
    assert [tick for tick, _ in said] == [5, 15, 35, 75, 115], "ever more seldom, to a limit"
    assert DOUBLINGS_MAX == 3
    for _, frame in said:
        assert (frame.session, frame.first_seq, list(frame.commands)) == (NUMBER, 4, [])
    sessions.applied(Executed(NUMBER, 1, [b"r"], 2))
    assert [tick for tick, _ in pass_ticks(sessions, 10, patience=5)] == [5], "something has come: as before"


def test_it_asks_before_the_session_can_expire(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    session.submit(b"x" * 50, 1, 1)
    take(sessions)
    assert [tick for tick, _ in pass_ticks(sessions, 30)] == [10, 20, 30]
    assert session.timeout_ms == 4 * 10 * 100


def test_the_answer_to_a_question_says_what_was_lost(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    for seq in (1, 2, 3):
        session.submit(b"%d" % seq, seq, 1)
    sessions.applied(Executed(NUMBER, 1, [b"r"], 2))
    take(sessions)
    sessions.applied(Gap(NUMBER, 4, 2))
    assert take(sessions) == [b"2", b"3"]


def test_what_was_executed_and_not_answered_here_is_sent_again_for_its_results(
    sessions: LocalSessions,
) -> None:
    """Its commands came into the log by another server, before the session was attached here; its frame is lost."""
    session, sink = opened(sessions)
    session.submit(b"123", 1, 3)
    take(sessions)
    sessions.applied(Executed(NUMBER, 4, [b"4", b"5"], 6))
    assert sessions.pending_bytes == 3, "results of what follows are no answer to it"
    ((_, question),) = pass_ticks(sessions, 5, patience=5)
    assert question.first_seq == 4
    sessions.applied(Executed(NUMBER, 6, (), 6, 1))
    assert take(sessions) == [b"123"]
    sessions.applied(Executed(NUMBER, 1, [b"1", b"2", b"3"], 6, 1))
    assert sink.answers == {1: b"1", 2: b"2", 3: b"3", 4: b"4", 5: b"5"}
    assert sessions.pending_bytes == 0


def test_of_results_that_the_client_has_only_the_place_in_the_row_is_given(sessions: LocalSessions) -> None:
    """It said so in a later frame than the one that is answered."""
    session, sink = opened(sessions)
    session.submit(b"1234", 1, 4)
    session.submit(b"5", 5, 1)
    sessions.applied(Executed(NUMBER, 3, [b"3", b"4"], 6, 3))
    assert sink.answers == {1: None, 2: None, 3: b"3", 4: b"4"}
    sessions.applied(Executed(NUMBER, 6, (), 6, 6))
    assert sink.answers[5] is None
    assert sessions.pending_bytes == 0


def test_a_gap_is_mended_once_however_many_frames_find_it(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    for seq in range(1, 6):
        session.submit(b"%d" % seq, seq, 1)
    sessions.applied(Executed(NUMBER, 1, [b"r"], 2))
    take(sessions)
    mended = []
    for tick in range(1 + 8 + 16 + 32 + 64 + 64):
        for seq in (3, 4, 5):
            sessions.applied(Gap(NUMBER, seq, 2))
        sent = take(sessions)
        assert sent in ([], [b"2", b"3", b"4", b"5"])
        mended += [tick] if sent else []
        sessions.tick(patience_ticks=1000)
    assert mended == [0, 8, 24, 56, 120, 184], "lost again, or only late: ever more seldom"
    assert MEND_PATIENCE_TICKS == 8
    sessions.applied(Executed(NUMBER, 2, [b"r"], 3))
    sessions.applied(Gap(NUMBER, 5, 3))
    assert take(sessions) == [b"3", b"4", b"5"], "another gap is mended at once"


def test_a_gap_that_only_the_client_can_fill_ends_the_session_here(sessions: LocalSessions) -> None:
    session, sink = opened(sessions)
    session.submit(b"7", 7, 1)
    sessions.applied(Gap(NUMBER, 7, 3))
    assert [type(e) for _, e in sink.errors] == [InvalidArgument]
    assert sessions.pending_bytes == 0


def test_limits_are_checked_before_anything_is_kept(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    with pytest.raises(InvalidArgument):
        session.submit(b"x" * 101, 1, 1)
    session.submit(b"x" * 100, 1, 1)
    session.submit(b"x" * 100, 2, 1)
    with pytest.raises(ResourceExhausted):
        session.submit(b"x" * 51, 3, 1)
    assert sessions.pending_bytes == 200


def test_outcomes_that_end_a_session_say_so(sessions: LocalSessions) -> None:
    for outcome, error in (
        (Expired(NUMBER, 1), SessionExpired),
        (Overloaded(NUMBER, 1, 1), ResourceExhausted),
    ):
        session, sink = opened(sessions)
        session.submit(b"1", 1, 1)
        sessions.applied(outcome)
        assert [type(e) for _, e in sink.errors] == [error]
        with pytest.raises(Unavailable):
            session.submit(b"2", 2, 1)
        assert len(sessions) == 0


def test_outcomes_of_sessions_attached_elsewhere_are_nothing(sessions: LocalSessions) -> None:
    sessions.applied(Executed(NUMBER, 1, [b"1"], 2))
    sessions.applied(Ended(NUMBER, 1, False))
    assert take(sessions) == []


def test_an_idle_session_shows_that_it_lives(sessions: LocalSessions) -> None:
    opened(sessions)
    for _ in range(10):
        sessions.tick(patience_ticks=1000)
    (frame,) = take(sessions)
    word = decode_frame(frame)
    assert isinstance(word, Frame)
    assert (word.session, list(word.commands)) == (NUMBER, [])


def test_a_session_with_a_time_out_of_its_own_shows_life_by_it(sessions: LocalSessions) -> None:
    sessions.register(Sink(), 78, timeout_ms=1_200)
    (frame,) = take(sessions)
    word = decode_frame(frame)
    assert isinstance(word, Frame)
    assert word.register is not None
    assert word.register.timeout_ms == 1_200
    sessions.applied(Registered(NUMBER, 78, 1_200))
    for _ in range(3):
        assert take(sessions) == []
        sessions.tick(patience_ticks=1000)
    assert len(take(sessions)) == 1


def test_a_session_that_its_client_ends_expires_in_the_log_with_the_last_command_seen(
    sessions: LocalSessions,
) -> None:
    session, _ = opened(sessions)
    session.submit(b"1", 1, 2)
    sessions.applied(Executed(NUMBER, 1, [b"1", b"2"], 3))
    take(sessions)
    session.end()
    (frame,) = take(sessions)
    word = decode_frame(frame)
    assert isinstance(word, Frame)
    assert word.expire == Expire(NUMBER, 2)
    assert len(sessions) == 0


def test_a_session_that_is_ended_with_commands_on_their_way_is_only_let_go(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    session.submit(b"1", 1, 1)
    take(sessions)
    session.end()
    assert take(sessions) == []


def test_a_server_that_stops_takes_no_more(sessions: LocalSessions) -> None:
    session, _ = opened(sessions)
    sessions.stopping = True
    with pytest.raises(Unavailable):
        session.submit(b"1", 1, 1)
