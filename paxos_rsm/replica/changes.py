"""Changes of the members that were asked for at this server, until it is known what became of them.

A change is asked of the leader under a random number, again and again, until the decided configuration has that number
among its ``changes``, or the leader refuses. However often it is asked, it is carried out once. Where the leader says
that it is done, there may have been nothing to do, and no configuration has the number: then it is done here as well,
once nothing is to be done here either.
"""

from collections.abc import Callable
from typing import TypeAlias

from paxos_rsm.errors import MembershipRefused
from paxos_rsm.paxos.changes import Change, Reason, changed
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.node import Node
from paxos_rsm.paxos.ready import ChangeAnswer

__all__ = ["ChangeDone", "Changes"]

ChangeDone: TypeAlias = Callable[[Configuration | MembershipRefused], None]
"""Told the configuration in which a change is carried out, as this server has it then; or why it was refused."""


class _Waiting:
    __slots__ = ("asked_at", "change", "done", "is_decided")

    def __init__(self, change: Change, done: ChangeDone, asked_at: int) -> None:
        self.change = change
        self.done = done
        self.asked_at = asked_at
        self.is_decided = False
        """The leader says so; this server may have yet to learn it."""


class Changes:
    """See the module's docstring. Time is in ticks."""

    def __init__(self, node: Node, patience_ticks: int) -> None:
        self._node = node
        self._patience = patience_ticks
        self._waiting: dict[int, _Waiting] = {}
        self._now = 0
        self._seen: Configuration | None = None

    def ask(self, request_id: int, change: Change, done: ChangeDone) -> None:
        """Asks for a change, now and until :meth:`forget`; ``done`` is called once."""
        self._waiting[request_id] = _Waiting(change, done, self._now)
        self._node.change(request_id, change)

    def forget(self, request_id: int) -> None:
        """Asks no more. The change may still be carried out."""
        self._waiting.pop(request_id, None)

    def tick(self) -> None:
        """Asks again after what has waited for long."""
        self._now += 1
        for request_id, waiting in self._waiting.items():
            if not waiting.is_decided and self._now - waiting.asked_at >= self._patience:
                waiting.asked_at = self._now
                self._node.change(request_id, waiting.change)

    def answered(self, answers: list[ChangeAnswer]) -> None:
        """What the leader says."""
        for request_id, refusal, reason in answers:
            waiting = self._waiting.get(request_id)
            if waiting is None or reason == Reason.UNAVAILABLE:
                continue  # asked again in a while
            if reason == Reason.DONE:
                waiting.is_decided = True
                self._seen = None
            else:
                del self._waiting[request_id]
                waiting.done(MembershipRefused(refusal, reason))

    def decided(self) -> None:
        """Slots have been decided: perhaps one of them holds what is waited for."""
        configuration = self._node.configuration
        if configuration is None or configuration is self._seen:
            return
        self._seen = configuration
        for request_id in [n for n, w in self._waiting.items() if _is_in(configuration, n, w)]:
            self._waiting.pop(request_id).done(configuration)


def _is_in(configuration: Configuration, request_id: int, waiting: _Waiting) -> bool:
    """Whether a change has been carried out in this configuration, or (as the leader says) had been before."""
    if request_id in configuration.changes:
        return True
    try:
        return waiting.is_decided and changed(configuration, waiting.change, request_id) is configuration
    except MembershipRefused:
        return False  # this server has yet to learn of what the leader knows
