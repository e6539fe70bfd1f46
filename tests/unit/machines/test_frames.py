from typing import get_args

from paxos_rsm.codec.frames import commands_frame, expire_frame, register_frame, timeouts_frame
from paxos_rsm.machines.base import Timeout
from paxos_rsm.machines.frames import Frame, FrameOutcome
from tests.unit.machines.helpers import Log, TimedDiary


def test_a_frame_says_nothing_by_itself() -> None:
    frame = Frame()
    assert (frame.session, frame.first_seq, frame.received_below, list(frame.commands)) == (0, 0, 0, [])
    assert frame.register is None
    assert frame.expire is None


def test_every_kind_of_outcome_can_be_met() -> None:
    log = Log(TimedDiary(), session_results_max=1)
    session = log.register()
    outcomes = log.slot(
        register_frame(8, 1),
        commands_frame(session, 1, 1, [b"a"]),
        commands_frame(session, 2, 1, [b"b"]),
        commands_frame(session, 3, 1, [b"c"]),
        commands_frame(session + 1, 1, 1, [b"d"]),
        expire_frame(session, 1),
        timeouts_frame([Timeout(1, 1)]),
        b"\xff",
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Registered",
        "Executed",
        "Overloaded",
        "Gap",
        "Expired",
        "Ended",
        "TimedOut",
        "Refused",
    ]
    assert {type(outcome) for outcome in outcomes} == set(get_args(FrameOutcome))
