"""What servers lose: the bits of their disks, whole directories, snapshots, the newest of what they had, their memory.

What would lose the data of more servers than quorums allow is not done, for no protocol survives that. Where the
members stay who they are, the disks of ``World.losable`` of them may be wiped or damaged for good, and of the others
every synced byte stays.

Where the members change, it is their configurations that say who must be spared: those that may count (the newest that
was chosen, and whatever was proposed since) must each have a quorum of servers that have lost nothing. An operator who
then asks for a change takes care that this stays so, and so does the leader (``check_reach``); but a change that was
asked for before, and is made after, can leave too few all the same. Such a cluster is *stranded*: nothing that it does
may be wrong, and nobody can bring it back to life (:meth:`Losses.stranded`).

A state *goes wrong* (marks.py) at one server at a time, where there are three voters or more and none of them has lost
anything: more than that nobody could tell from one another.
"""

from collections.abc import Mapping
from random import Random

from paxos_rsm.paxos.changes import AddMember, Change, RemoveMember, resized
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.types import NodeId
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.network import Network
from paxos_rsm.sim.oracle import Oracle
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.server_view import DIRECTORY, SNAPSHOTS, Copy, number_of
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.world import ELECTION_TICKS, TICK_UNITS, World
from paxos_rsm.storage.memory import MemoryFiles, PowerLost

__all__ = ["Losses"]


class Losses:
    """See the module's docstring. The half of the weather that takes something away for good."""

    _stage: Stage
    _world: World
    _network: Network
    _oracle: Oracle
    _servers: Mapping[int, SimServer]
    _random: Random
    over: bool

    # ---- choosing --------------------------------------------------------------------------------------------

    def _up(self) -> list[SimServer]:
        return [server for server in self._servers.values() if server.up]

    def _someone(self) -> SimServer | None:
        """A server that runs; the leader more often than chance would have it."""
        up = self._up()
        if not up:
            return None
        leaders = [server for server in up if server.leads]
        if leaders and self._random.random() < 0.4:
            return self._random.choice(leaders)
        return self._random.choice(up)

    def _shuffled(self) -> list[int]:
        numbers = list(self._servers)
        self._random.shuffle(numbers)
        return numbers

    def _ticks(self, most: int) -> int:
        return self._random.randint(1, most) * TICK_UNITS

    # ---- what can be spared ----------------------------------------------------------------------------------

    def _may_lose(self, server: SimServer) -> bool:
        """Whether the others could go on without it: enough of them, and one that knows for good who they are."""
        if server.spoilt:
            return True
        if any(other.suspect for other in self._servers.values()):
            return False  # Whose state is right takes a majority that has lost nothing.
        sound = [other for other in self._servers.values() if other is not server and not other.spoilt]
        if self._world.changes:
            enough = all(
                _has_quorum(each.nodes | self._comes_to_vote(server, each), each, self._nodes(sound))
                for each in self._counting(sound)
            )
        else:
            enough = len(self._servers) - len(sound) <= self._world.losable
        return enough and any(other.knows_genesis for other in sound) and self._state_lives_without(server)

    def _counting(self, sound: list[SimServer]) -> list[Configuration]:
        """Who may count, where these have lost nothing: what they know to be decided needs no quorum any more."""
        named = self._oracle.configuration
        if named is None:
            return []
        known = [each.decided_on_disk for each in sound if each.node in named.everybody]
        return self._oracle.counting(max(known, default=0))

    @staticmethod
    def _nodes(servers: list[SimServer]) -> set[NodeId]:
        return {server.node for server in servers if server.node}

    @staticmethod
    def _comes_to_vote(server: SimServer, named: Configuration) -> set[NodeId]:
        """A learner that is close may be made a voter before anybody notices what it has lost."""
        return {server.node} if server.node in named.everybody else set()

    def _state_lives_without(self, server: SimServer) -> bool:
        """Whether what logs have forgotten is still to be had where this server does not have it any more.

        One whose snapshots are sound must hold all that was ever forgotten where they are not: of what lies above, the
        logs have the rest.
        """
        servers = list(self._servers.values())
        if self._world.changes:
            named = self._oracle.configuration
            servers = [each for each in servers if named is not None and each.node in named.everybody]
        unsure = [each for each in servers if each is server or each.rotten or each.suspect]
        through = max((each.forgotten_through for each in unsure), default=0)
        return any(
            each not in unsure and not each.spoilt and each.decided_on_disk >= through for each in servers
        )

    def _can_be_made(self, configuration: Configuration, change: Change) -> bool:
        """Whether a careful operator asks for this: those who are left have a quorum, and the state, among them."""
        if isinstance(change, AddMember) or not any(
            each.spoilt or each.rotten or each.suspect for each in self._servers.values()
        ):
            return True
        nodes = configuration.nodes
        if isinstance(change, RemoveMember):
            gone = configuration.by_member_id(change.member_id)
            server = self._servers[number_of(change.member_id)]
            if gone is None or (not server.spoilt and not self._state_lives_without(server)):
                return False
            nodes = nodes - {gone.incarnation}
            if len(nodes) < 3 and any(each.suspect for each in self._servers.values()):
                return False
        return _has_quorum(nodes, configuration, self._nodes(self._sound()))

    def _sound(self) -> list[SimServer]:
        return [server for server in self._servers.values() if not server.spoilt]

    def stranded(self) -> bool:
        """Whether nobody can bring this cluster back to life: too few are left that have lost nothing."""
        named = self._oracle.configuration
        if not self._world.changes or named is None:
            return False
        sound = self._sound()
        if not all(_has_quorum(each.nodes, each, self._nodes(sound)) for each in self._counting(sound)):
            return True
        servers = [each for each in self._servers.values() if each.node in named.everybody]
        through = max((each.forgotten_through for each in servers if each.rotten), default=0)
        return not any(
            not (each.spoilt or each.rotten) and each.decided_on_disk >= through for each in servers
        )

    # ---- disks -----------------------------------------------------------------------------------------------

    def _flip(self) -> bool:
        """A bit on the disk of a server turns over while it is down."""
        down = [s for s in self._servers.values() if not s.up and not s.lost and s.node]
        if not down or not self._may_lose(server := self._random.choice(down)):
            return False
        # Not the lock: it holds the number of this very process, and nothing that a server reads.
        paths = [path for path in server.files.paths(DIRECTORY) if not path.endswith("/LOCK")]
        if not paths:
            return False
        server.spoilt = True
        rnd = self._random
        segments = [path for path in paths if path.startswith(f"{DIRECTORY}/log/")]
        path = rnd.choice(segments if segments and rnd.random() < 0.8 else paths)
        # Most of a segment is zeros between its header and its records, and after them.
        data = server.files.read(path)
        written = [at for at, byte in enumerate(data) if byte]
        at = rnd.choice(written) if written and rnd.random() < 0.9 else rnd.randrange(len(data) or 1)
        server.files.flip(path, 8 * at + rnd.randrange(8))
        return True

    def _wipe(self) -> bool:
        """A server comes back with an empty directory."""
        server = self._someone()
        if server is None or not self._may_lose(server):
            return False
        server.spoilt = True
        server.kill()
        server.files = MemoryFiles()
        return True

    # ---- snapshots -------------------------------------------------------------------------------------------

    def _rot(self) -> bool:
        """A snapshot of a server that is down is damaged or lost: it has to do with an older one, or to fetch one."""
        down = [s for s in self._servers.values() if not s.up and not s.lost and s.node]
        if not down or not self._state_lives_without(server := self._random.choice(down)):
            return False
        rnd, paths = self._random, server.files.paths(SNAPSHOTS)
        if not paths:
            return False
        path = paths[-1] if rnd.random() < 0.7 else rnd.choice(paths)
        try:
            if rnd.random() < 0.3:
                server.files.remove(path)
                server.files.sync_directory(SNAPSHOTS)
            else:
                server.files.flip(path, rnd.randrange(8 * len(server.files.read(path)) or 1))
        except PowerLost:
            return False  # it was armed when it died, and has yet to notice
        server.rotten = True
        return True

    def _old_copy(self) -> bool:
        """A backup of a server's disk is made, to be put back when that server has been started again since."""
        server = self._someone()
        if server is None or not server.formed or not self._may_lose(server):
            return False
        copy = server.copy()
        server.kill()
        delay = self._ticks(4 * ELECTION_TICKS)
        self._stage.schedule(delay, self._put_back, server, copy)
        return True

    def _put_back(self, server: SimServer, copy: Copy) -> None:
        """The backup takes the place of the disk: those who have heard more of that server must refuse it.

        Only where everybody else has: the others cannot tell (docs/RELIABILITY.md).
        """
        named = self._oracle.configuration
        everybody = named.everybody if named is not None else frozenset()
        others = [
            other
            for other in self._servers.values()
            if other is not server and not other.lost and (not self._world.changes or other.node in everybody)
        ]
        standing = self._network.connected()
        if (
            self.over
            or not server.up
            or server.node != copy.model.host
            or server.node not in everybody
            or server.boot_count <= copy.boot_count
            or not self._may_lose(server)
            or any(tuple(sorted((server.number, other.number))) not in standing for other in others)
        ):
            return
        self._stage.fire("old copy put back")
        server.put_back(copy)
        for other in others:
            if server.up:
                self._network.introduce(server, other)
        if server.up:
            raise Broken("9", f"n{server.number} runs on an old copy of its disk, and nobody minds")

    # ---- memory ----------------------------------------------------------------------------------------------

    def _diverge(self) -> bool:
        """A bit of a server's memory turns over: its state is not that of the others from now on."""
        server = self._someone()
        named = self._oracle.configuration
        if server is None or named is None or server.node not in named.everybody or not server.can_go_wrong:
            return False
        right = {s.node for s in self._servers.values() if not (s.spoilt or s.rotten or s.suspect)}
        if len(named.nodes) < 3 or not named.nodes <= right or not self._state_lives_without(server):
            return False
        server.go_wrong(self._random.getrandbits(31) | 1)
        return True


def _has_quorum(nodes: set[NodeId] | frozenset[NodeId], named: Configuration, sound: set[NodeId]) -> bool:
    """Whether those of ``nodes``, the voters, that have lost nothing are a quorum, in either phase."""
    sizes = resized(named.quorum, len(nodes))
    return len(nodes & sound) >= max(sizes.phase1, sizes.phase2)
