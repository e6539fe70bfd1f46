"""A cluster under hand that writes down who said what to whom, and what became of it.

It is the harness of the unit tests (with its oracle, and :meth:`Node.check` at every turn) and a transcript: each
message that arrives, and below it, indented, what the receiver wrote, decided, applied and became. Heartbeats that
change nothing are not worth a line.
"""

from dataclasses import replace
from itertools import filterfalse

from paxos_rsm.paxos.messages import Heartbeat, Message
from paxos_rsm.paxos.proposer import Phase
from paxos_rsm.paxos.ready import Ready
from paxos_rsm.paxos.settings import Settings
from paxos_rsm.paxos.types import NO_BALLOT, Batch, Slot, split_frames
from tests.scripts.patterns import Pattern, meant
from tests.scripts.script import ScriptError
from tests.scripts.words import (
    ballot_words,
    entry_words,
    frame_words,
    is_silent,
    message_words,
    own_words,
    write_words,
)
from tests.unit.paxos.harness import Cluster, Host

NEVER = 1 << 40


class Watched(Cluster):
    """See the module's docstring. Nobody stands but who is told to, or is impatient."""

    def __init__(self, count: int, settings: Settings, phase2: int, met: bool) -> None:
        self.lines: list[str] = []
        self.paused: set[int] = set()
        self.impatient: set[int] = set()
        self.indent = ""
        self._roles: dict[int, tuple[Phase, object]] = {}
        self._decided: dict[int, set[Slot]] = {}
        super().__init__(count, 0, settings, phase2, met)
        self.observers.append(self._watch)

    def say(self, line: str) -> None:
        """One line of the transcript."""
        self.lines.append(self.indent + line)

    # ---- what a turn does --------------------------------------------------------------------------------------

    def _watch(self, number: int, ready: Ready) -> None:
        node = self.node(number)
        role = node.proposer.phase, node.proposer.ballot
        before = self._roles.get(number, (Phase.IDLE, NO_BALLOT))
        if role != before:
            self._roles[number] = role
            if role[0] is Phase.IDLE:
                what = "steps down from" if before[0] is Phase.LEADING else "gives up"
                self.say(f"{number} {what} ballot {ballot_words(node.proposer.ballot)}")
            else:
                what = "leads" if role[0] is Phase.LEADING else "stands in"
                self.say(f"{number} {what} ballot {ballot_words(node.proposer.ballot)}")
        verb = "is writing" if number in self.hold_writes else "writes"
        for write in ready.writes:
            if not is_silent(write):
                self.say(f"{number} {verb} {write_words(write)}")
        applied = {slot for slot, _ in ready.decided}
        decided = {slot for slot, state in node.log.slots.items() if state.decided}
        for slot in sorted(decided - self._decided.get(number, set()) - applied):
            self.say(f"{number} knows slot {slot} to be decided, and may not apply it yet")
        self._decided[number] = decided
        if len(ready.decided) > 4:
            self.say(f"{number} applies slots {ready.decided[0][0]}..{ready.decided[-1][0]}")
        else:
            for slot, entry in ready.decided:
                self.say(f"{number} applies slot {slot}: {entry_words(entry)}")
        if ready.fetch_snapshot is not None:
            peer, at_least = ready.fetch_snapshot
            self.say(f"{number} needs a snapshot of {peer}, of slot {at_least} or later")
        for grant in ready.reads:
            if grant.index is None:
                self.say(f"{number} must ask again for read {grant.read_id}")
            else:
                self.say(f"{number} may serve read {grant.read_id} from slot {grant.index} on")

        for reply in ready.change_replies:
            self.say(f"{number} is told of request {reply.request_id}: {reply.refusal or 'done'}")
        if node.removed:
            self.say(f"{number} was removed, a quorum of the others knows it, and it stops")

    def sync(self, number: int, turns: int | None = None) -> None:
        """What a host has written becomes durable."""
        host = self.hosts[number]
        done = host.writing[:turns]
        if number in self.hold_writes:
            for turn in done:
                for write in filterfalse(is_silent, turn.writes):
                    self.say(f"{number} has on disk {write_words(write)}")
        for turn in done:
            for envelope in turn.after:
                if envelope.to == number:
                    self.say(f"{number} counts its own {own_words(envelope.message)}")
        super().sync(number, turns)

    # ---- messages ----------------------------------------------------------------------------------------------

    def hand(self, sender: int, to: int, message: Message) -> None:
        """A message arrives; what comes of it stands below."""
        said, under_way = len(self.lines), len(self.wire)
        self.say(f"{sender} -> {to} {message_words(message)}")
        outer, self.indent = self.indent, self.indent + "  "
        super().hand(sender, to, message)
        self.indent = outer
        quiet = isinstance(message, Heartbeat) and not message.round
        if quiet and len(self.lines) == said + 1 and len(self.wire) == under_way:
            self.lines.pop()

    def arrive(self, index: int) -> None:
        """One message of the wire arrives, or is lost on a cut link or at a dead host."""
        sender, to, _ = self.wire[index]
        if (sender, to) in self.cut:
            self.lose_one(index, "the link is cut")
        elif to not in self.hosts or not self.hosts[to].up:
            self.wire.pop(index)  # who is down hears nothing: not worth a line
        else:
            self.deliver(index)

    def lose_one(self, index: int, why: str) -> None:
        """One message of the wire is lost."""
        sender, to, message = self.wire.pop(index)
        if not isinstance(message, Heartbeat):
            self.say(f"{sender} -> {to} {message_words(message)} is lost: {why}")

    def calm_wire(self, keep: list[Pattern], lose: list[Pattern]) -> None:
        """Delivers until nothing is under way but what is kept, or is for a host that is paused."""
        at = 0
        for _ in range(20_000):
            if at >= len(self.wire):
                return
            sender, to, message = self.wire[at]
            if to in self.paused or meant(keep, sender, to, message):
                at += 1
            elif meant(lose, sender, to, message):
                self.lose_one(at, "dropped")
            else:
                self.arrive(at)
        raise ScriptError("the wire does not fall silent")

    # ---- time --------------------------------------------------------------------------------------------------

    def pass_tick(self, number: int) -> None:
        """One tick at one host, which stands only if it is impatient."""
        host = self.hosts[number]
        if not host.up or number in self.paused:
            return
        election = host.node.election
        election.stand_at = election.supports_until if number in self.impatient else NEVER
        self.tick(number)

    def pass_time(self, ticks: int, keep: list[Pattern], lose: list[Pattern], numbers: list[int]) -> None:
        """Ticks, with everything delivered in between."""
        for tick in range(1, ticks + 1):
            said = len(self.lines)
            for number in numbers or list(self.hosts):
                self.pass_tick(number)
            self.calm_wire(keep, lose)
            if len(self.lines) > said and ticks > 1:
                self.lines.insert(said, f"(tick {tick})")

    def until_standing(self, number: int, limit: int, lose: list[Pattern]) -> None:
        """Time passes until this host stands, which it does as soon as it may."""
        if not self.hosts[number].up or number in self.paused:
            raise ScriptError(f"{number} is not running")
        for tick in range(1, limit + 1):
            said = len(self.lines)
            for other in self.hosts:
                if other != number:
                    self.pass_tick(other)
            election = self.node(number).election
            election.stand_at = 0
            self.tick(number)
            standing = self.node(number).proposer.phase is Phase.PREPARING
            if not standing:
                self.calm_wire([], lose)
            if len(self.lines) > said:
                self.lines.insert(said, f"(tick {tick})")
            if standing:
                return
        raise ScriptError(f"{number} does not stand within {limit} ticks")

    def forget(self, number: int) -> None:
        """A host starts anew: what was seen of it is over."""
        self._roles.pop(number, None)
        self._decided.pop(number, None)

    def wipe(self, old: int, new: int) -> None:
        """A host loses its disk: another incarnation starts in its place. While the cluster forms, it is a member."""
        self.crash(old)
        self.hosts[new] = Host(new, 0, self.hosts[old].settings)
        if 1 in self.oracle.chosen:
            return
        people = tuple(
            replace(m, incarnation=new) if m.incarnation == old else m for m in self.configuration.members
        )
        self.configuration = replace(self.configuration, members=people)
        self.oracle.configuration = self.configuration

    # ---- views -------------------------------------------------------------------------------------------------

    def status(self, number: int) -> str:
        """One line on one host."""
        host = self.hosts[number]
        if not host.up:
            return f"{number} is down"
        node = host.node
        role = node.role
        if node.proposer.phase is not Phase.IDLE:
            kind = "leader" if node.proposer.leading else "candidate"
            role = f"{kind} of ballot {ballot_words(node.proposer.ballot)}"
        elif node.leader is not None:
            role = f"{role} of {node.leader[0]}"
        applied = host.applied[-1][0] if host.applied else 0
        return (
            f"{number} is {role}; promised {ballot_words(node.acceptor.promised)}, decided through "
            f"{node.decided_through}, applied through {applied}"
        )

    def log_lines(self, number: int) -> list[str]:
        """What a node holds in memory."""
        log = self.node(number).log
        lines: list[str] = []
        for slot in range(1, log.max_slot + 1):
            state = log.get(slot)
            if state is None:
                lines.append(f"{number} slot {slot}: empty")
                continue
            vote = "" if state.ballot == NO_BALLOT else f", voted in {ballot_words(state.ballot)}"
            lines.append(
                f"{number} slot {slot}: {entry_words(state.entry)}{vote}{', decided' * state.decided}"
            )
        return lines

    def disk_lines(self, number: int) -> list[str]:
        """What a node would find on its disk."""
        disk = self.hosts[number].disk
        lines = [
            f"{number} on disk: promised {ballot_words(disk.promised)}, decided through {disk.decided_through}"
        ]
        for slot, (ballot, entry) in sorted(disk.votes.items()):
            how = "decided" if ballot is None else f"voted in {ballot_words(ballot)}"
            lines.append(f"{number} on disk: slot {slot}: {entry_words(entry)}, {how}")
        return lines

    def applied_line(self, host: Host) -> str:
        """The frames that a host has applied."""
        frames = [
            frame_words(f) for _, e in host.applied if isinstance(e, Batch) for f in split_frames(e.data)
        ]
        return f"{host.number} has applied: {' '.join(frames) or 'no command'}"
