"""Whether the servers' states are the same: each tells the others what its own has come to, and compares.

State machines are deterministic, so one log makes one state; memory that flips a bit, or a bug, makes two. Every server
keeps digests of what was done to its state, at the same slots as all others (``SessionMachine.digests``: each goes into
all that follow it). Every second or so it sends those that are new to the others, and looks at theirs:

- the *first slot that differs* is the first one, of those that both still have, at which two have not the same;
- the *majority* are the members of the configuration that vote, more than half of them, that have one and the same
  digest at a slot. Who has another there is in the minority: it takes the state of one of them in the place of its own;
- where no digest has a majority (two members that differ, or others that are down) nobody can tell who is right: that
  is said, and nothing done.

Only the state is in question. What an acceptor has promised and voted is not made of it, and stays as it is.

A server believes what its peers say of themselves: none of them lies. Nothing here knows a disk or a clock.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from paxos_rsm.paxos.messages import Envelope, StateDigest
from paxos_rsm.paxos.types import NodeId, Slot

__all__ = ["Comparison", "Difference", "Verdict", "told"]

PAIRS_MAX = 32
"""In one message: what is new in a second, and how far back the first slot that differs is looked for."""
KEPT_MAX = 256
"""Of each peer, as many as a server keeps of its own."""
PATIENCE = 5
"""Times in a row that no majority is found, before that is said: the others' next message may bring one."""


class Verdict(Enum):
    """What a server makes of a difference."""

    MINORITY = "minority"
    """A majority has another state than this server."""
    MAJORITY = "majority"
    """This server and a majority agree, and somebody else does not."""
    UNDECIDED = "undecided"
    """No majority agrees on anything."""
    EQUAL = "equal"
    """There was a difference, and there is none any more."""


class Difference(NamedTuple):
    """That states differ, or do no more."""

    verdict: Verdict
    others: tuple[NodeId, ...]
    """Who differs from this server, ascending; none where all are equal."""
    first: Slot
    """The first slot at which that shows."""
    agreed: Slot
    """The last slot before it at which they were the same; 0 where none is known."""


EQUAL = Difference(Verdict.EQUAL, (), 0, 0)


class Comparison:
    """What one server knows of its own state and of the others'."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._own: dict[Slot, bytes] = {}
        self._theirs: dict[NodeId, dict[Slot, bytes]] = {}
        self._told: Slot = 0
        """The newest slot of our own that the others were sent."""
        self._owed: set[NodeId] = set()
        """Who may lack what the others were sent."""
        self._undecided = 0
        self.standing = EQUAL
        """What was last found."""

    # ---- what comes in ---------------------------------------------------------------------------------------

    def observe(self, digests: Sequence[tuple[Slot, bytes]]) -> None:
        """What this server has: all that it still has, oldest first."""
        if not digests:
            self._own = {}
        elif self._own.get(digests[-1][0]) != digests[-1][1] or len(self._own) != len(digests):
            self._own = dict(digests)

    def heard(self, sender: NodeId, message: StateDigest) -> None:
        """What a member says that it has."""
        known = self._theirs.setdefault(sender, {})
        for slot, digest in message.pairs:
            # Said anew by one that has taken another's state: it is what counts, also in the order here.
            known.pop(slot, None)
            known[slot] = digest
        while len(known) > KEPT_MAX:
            del known[next(iter(known))]

    def peer_up(self, node: NodeId) -> None:
        """What was sent to it before may be lost."""
        self._owed.add(node)

    def rebuilt(self) -> None:
        """Our state is another's now."""
        self._own = {}
        self._told = 0
        self._undecided = 0
        self.standing = EQUAL

    # ---- what goes out ---------------------------------------------------------------------------------------

    def messages(self, others: Collection[NodeId]) -> list[Envelope]:
        """What is new since the last time, for every other member; and for those that have just come, what there is."""
        newest = list(self._own.items())[-PAIRS_MAX:]
        new = tuple(pair for pair in newest if pair[0] > self._told)
        envelopes: list[Envelope] = []
        if newest:
            to_owed, to_all = StateDigest(tuple(newest)), StateDigest(new)
            for node in sorted(others):
                if node in self._owed:
                    envelopes.append(Envelope(node, to_owed))
                elif new:
                    envelopes.append(Envelope(node, to_all))
            self._owed.difference_update(others)
            self._told = newest[-1][0]
        return envelopes

    # ---- what comes of it ------------------------------------------------------------------------------------

    def judge(self, voters: Collection[NodeId]) -> Difference | None:
        """What is found now, where that is not what was found before. Who is not in ``voters`` is forgotten."""
        self._theirs = {node: said for node, said in self._theirs.items() if node in voters}
        found = self._find(voters)
        if found.verdict is Verdict.UNDECIDED:
            self._undecided += 1
            if self._undecided < PATIENCE:
                return None
        else:
            self._undecided = 0
        is_known = (found.verdict, found.others) == (self.standing.verdict, self.standing.others)
        if is_known:
            return None
        self.standing = found
        return found

    def _find(self, voters: Collection[NodeId]) -> Difference:
        """The newest slot that a majority agrees on tells who is right; what is newer, whether there is a doubt."""
        doubtful: set[NodeId] = set()
        for slot in reversed(self._own):
            mine = self._own[slot]
            said = {node: known[slot] for node, known in self._theirs.items() if slot in known}
            if not said:
                continue
            votes = Counter(said.values())
            votes[mine] += self._me in voters
            digest, count = votes.most_common(1)[0]
            if 2 * count > len(voters):
                if digest != mine:
                    return self._difference(Verdict.MINORITY, [n for n in said if said[n] == digest])
                others = [node for node in said if said[node] != mine]
                # What is said of a newer slot is newer: they may have taken another's state since.
                others = [node for node in others if not self._agrees_since(node, slot)]
                if others:
                    return self._difference(Verdict.MAJORITY, others)
                break
            doubtful.update(n for n in said if said[n] != mine and not self._agrees_since(n, slot))
        return self._difference(Verdict.UNDECIDED, doubtful) if doubtful else EQUAL

    def _agrees_since(self, node: NodeId, slot: Slot) -> bool:
        known = self._theirs[node]
        newest = max(each for each in known if each in self._own)
        return newest > slot and known[newest] == self._own[newest]

    def _difference(self, verdict: Verdict, others: Iterable[NodeId]) -> Difference:
        nodes = sorted(others)
        said = [self._theirs[node] for node in nodes]
        differing, agreeing = [], [0]
        for slot, mine in self._own.items():
            digests = [known[slot] for known in said if slot in known]
            if any(digest != mine for digest in digests):
                differing.append(slot)
            elif digests:
                agreeing.append(slot)
        agreed = max(slot for slot in agreeing if slot < differing[-1])
        first = min(slot for slot in differing if slot > agreed)
        return Difference(verdict, tuple(nodes), first, agreed)


def told(found: Difference, names: Mapping[NodeId, str]) -> str:
    """The sentence for an operator."""
    others = " and ".join(sorted(names.get(node, f"{node:x}") for node in found.others))
    before = f"it was the same at slot {found.agreed}" if found.agreed else "before it nothing is known"
    where = f"slot {found.first} is the first that shows it, {before}"
    match found.verdict:
        case Verdict.MINORITY:
            return (
                f"the state of this server is not that of a majority, {others}: {where}. It serves nobody until it has "
                "taken the state of one of them; its snapshots are put aside"
            )
        case Verdict.MAJORITY:
            return (
                f"the state of {others} is not that of this server and a majority: {where}. It is rebuilt from one of "
                "us, by itself"
            )
        case Verdict.UNDECIDED:
            return (
                f"the states of this server and {others} differ, and no majority says who is right: {where}. Compare "
                "them (`paxos-rsm endpoint hashkv`, `paxos-rsm status --digest`), remove the member that is wrong, and "
                "add it again with an empty directory"
            )
        case Verdict.EQUAL:
            return "the states of all servers that were compared are equal again"
