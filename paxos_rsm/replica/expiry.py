"""When a session has ended: watched by the leader alone, decided by the log.

Every frame of a session, an empty one included, is a sign of life that all servers see in the log: the server to which
an idle session is attached sends an empty frame for it, four times a session time-out. So the leader needs no
reports from anybody: a session whose last active slot has not moved for its whole time-out, all of it under this
leadership, is proposed to expire. ``Expire`` names the last command that the leader saw executed and is void where
another has been executed meanwhile. A new leader starts every watch afresh. Clocks are counted in ticks.
"""

from collections.abc import Iterable
from typing import Protocol

from paxos_rsm.codec.frames import encode_frame
from paxos_rsm.machines.frames import Expire, Frame
from paxos_rsm.machines.sessions import SessionInfo

__all__ = ["Expiry", "SessionSource"]


class SessionSource(Protocol):
    """Where the sessions are: ``SessionMachine``."""

    def sessions(self) -> Iterable[SessionInfo]:
        """Every session that is alive."""
        ...


class Expiry:
    """The leader's watch over all sessions."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_ms = tick_ms
        self._every_ticks = max(1, 1000 // tick_ms)
        self._seen: dict[int, tuple[int, int]] = {}
        self._now = 0

    def tick(self, leading: bool, sessions: SessionSource) -> list[bytes]:
        """About once a second: the Expire frames to propose now. Anything but leading forgets what was seen."""
        self._now += 1
        if not leading:
            self._seen = {}
            return []
        if self._now % self._every_ticks:
            return []
        seen: dict[int, tuple[int, int]] = {}
        frames: list[bytes] = []
        for info in sessions.sessions():
            slot, since = self._seen.get(info.session, (-1, 0))
            if slot != info.last_active_slot:
                since = self._now
            elif (self._now - since) * self._tick_ms >= info.timeout_ms:
                frames.append(encode_frame(Frame(expire=Expire(info.session, info.last_seq))))
                since = self._now
            seen[info.session] = info.last_active_slot, since
        self._seen = seen
        return frames
