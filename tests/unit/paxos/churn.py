"""Members that come and go under a random schedule: what the fuzz does to the configuration.

Anybody may be asked for any change, sensible or not, and asked again; processes are started as members before and after
those were added, by two operators at once, and never; leaders hand over.
"""

import random
from collections import Counter
from collections.abc import Callable

from paxos_rsm.paxos.changes import (
    AddMember,
    Change,
    PromoteMember,
    RemoveMember,
    UpdateMember,
)
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import Accept
from tests.unit.paxos.harness import Cluster

HOSTS_MAX = 9


class Churn:
    """See the module's docstring."""

    def __init__(self, rnd: random.Random, cluster: Cluster, seen: Counter[str]) -> None:
        self._random = rnd
        self._cluster = cluster
        self._seen = seen
        self._asked: list[tuple[int, Change]] = []
        self._next_id = 0
        self._next_host = max(cluster.hosts) + 1

    def disturb(self) -> None:
        """Something happens to the members."""
        up = [n for n, host in self._cluster.hosts.items() if host.up]
        if not up:
            return
        # A leader that has just come to lead is busy with what others have left: that is when to ask it.
        busy = [n for n in self._cluster.leaders() if self._cluster.node(n).proposer.in_flight]
        number = self._random.choice(busy if busy and self._random.random() < 0.5 else up)
        action: Callable[[int], None] = self._random.choice(
            [
                self._add,
                self._add,
                self._start,
                self._remove,
                self._remove,
                self._promote,
                self._update,
                self._again,
                self._introduce,
                self._introduce,
                self._hand_over,
                self._interrupt,
                self._interrupt,
            ]
        )
        action(number)

    def settle(self) -> None:
        """The world has calmed down: whoever is awaited is met."""
        for number in self._cluster.leaders():
            self._cluster.introduce(number)

    def is_under_way(self) -> bool:
        """Whether somebody is still to join, who runs, or to become a voter."""
        waited = {host.claims for host in self._cluster.hosts.values() if host.up}
        members = self._cluster.oracle.governing(1 << 62).members
        return any(
            (not m.incarnation and m.member_id in waited) or (m.incarnation and m.promote) for m in members
        )

    def count(self) -> None:
        """What has come of it."""
        before = 0
        for _, configuration in self._cluster.oracle.changes:
            voters = len(configuration.nodes)
            self._seen["promoted"] += before and voters > before
            self._seen["voters removed"] += voters < before
            before = voters
        self._seen["changes"] += len(self._cluster.oracle.changes) - 1
        self._seen["stopped"] += sum(host.stopped for host in self._cluster.hosts.values())

    # ---- what happens ------------------------------------------------------------------------------------------

    def _ask(self, number: int, change: Change) -> None:
        self._next_id += 1
        self._asked.append((self._next_id, change))
        self._cluster.change(number, self._next_id, change)

    def _again(self, number: int) -> None:
        if self._asked:
            self._cluster.change(number, *self._random.choice(self._asked))

    def _member_id(self, number: int) -> int:
        configuration = self._cluster.node(number).configuration
        if configuration is None or self._random.random() < 0.1:
            return 100 + self._random.randint(1, self._next_host)
        return self._random.choice(configuration.members).member_id

    def _add(self, number: int) -> None:
        if len(self._cluster.hosts) >= HOSTS_MAX:
            return
        host = self._next_host
        self._next_host += 1
        promote = self._random.random() < 0.8
        member = Member(0, 100 + host, "", f"http://n{host}:2380", learner=True, promote=promote)
        self._ask(number, AddMember(member))
        if self._random.random() < 0.8:
            self._cluster.add(host)

    def _start(self, number: int) -> None:
        """A process in the place of a member; there may be one already."""
        if len(self._cluster.hosts) < HOSTS_MAX:
            claims = self._member_id(number)
            self._cluster.add(self._next_host, claims)
            self._next_host += 1

    def _remove(self, number: int) -> None:
        self._ask(number, RemoveMember(self._member_id(number)))

    def _promote(self, number: int) -> None:
        self._ask(number, PromoteMember(self._member_id(number)))

    def _update(self, number: int) -> None:
        self._ask(number, UpdateMember(self._member_id(number), f"http://elsewhere{self._next_id}:2380"))

    def _introduce(self, number: int) -> None:
        for leader in self._cluster.leaders() or [number]:
            self._cluster.introduce(leader)

    def _interrupt(self, number: int) -> None:
        """A leader dies in the middle of a change, with which it has reached one other at most."""
        leaders = self._cluster.leaders()
        if not leaders:
            return
        leader = self._random.choice(leaders)
        self._random.choice([self._add, self._remove, self._update, self._promote])(leader)
        accepts = self._cluster.take(Accept, sender=leader)
        for _, to, accept in [e for e in accepts if e[1] == self._random.choice(accepts)[1]]:
            self._cluster.hand(leader, to, accept)
        if self._cluster.hosts[leader].up:
            self._seen["interrupted"] += 1
            self._cluster.crash(leader, self._random.choice([0, 100]))
            for host in self._cluster.hosts.values():
                if host.up:
                    host.node.peer_down(leader)

    def _hand_over(self, number: int) -> None:
        for leader in self._cluster.leaders() or [number]:
            to = self._random.choice([None, *self._cluster.hosts])
            self._seen["handed over"] += self._cluster.hand_over(leader, to) is not None
