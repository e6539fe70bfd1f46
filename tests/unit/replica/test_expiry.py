"""When the leader gives a session up."""

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.machines.frames import Expire
from paxos_rsm.machines.sessions import SessionInfo
from paxos_rsm.replica.expiry import Expiry

TICK_MS = 250
TIMEOUT_MS = 3_000


class Sessions:
    def __init__(self) -> None:
        self.slot = 1
        self.last_seq = 4

    def sessions(self) -> list[SessionInfo]:
        return [SessionInfo(9, self.last_seq, 1, TIMEOUT_MS, self.slot)]


def ticks_until_expiry(expiry: Expiry, sessions: Sessions, most: int, leading: bool = True) -> int | None:
    for tick in range(1, most + 1):
        for frame in expiry.tick(leading, sessions):
            assert decode_frame(frame).expire == Expire(9, sessions.last_seq)  # type: ignore[union-attr]
            return tick
    return None


def test_silence_for_the_whole_time_out_under_one_leadership() -> None:
    ticks = ticks_until_expiry(Expiry(TICK_MS), Sessions(), 100)
    assert ticks is not None
    assert ticks * TICK_MS >= TIMEOUT_MS


def test_a_sign_of_life_starts_it_anew() -> None:
    expiry, sessions = Expiry(TICK_MS), Sessions()
    for _ in range(20):
        assert ticks_until_expiry(expiry, sessions, 8) is None
        sessions.slot += 1


def test_only_a_leader_watches_and_a_new_one_starts_afresh() -> None:
    expiry, sessions = Expiry(TICK_MS), Sessions()
    assert ticks_until_expiry(expiry, sessions, 100, leading=False) is None
    assert ticks_until_expiry(expiry, sessions, 12) is None
    assert ticks_until_expiry(expiry, sessions, 1, leading=False) is None
    again = ticks_until_expiry(expiry, sessions, 100)
    assert again is not None
    assert again * TICK_MS >= TIMEOUT_MS
