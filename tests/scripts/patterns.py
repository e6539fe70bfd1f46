"""Which messages a command means: ``Accept 1->3 slot 2, Nack``."""

import re
from dataclasses import dataclass

from paxos_rsm.paxos import messages as m
from paxos_rsm.paxos.types import Ballot
from tests.scripts.script import ScriptError

KINDS: dict[str, type[m.Message]] = {
    kind.__name__: kind
    for kind in (
        m.Prepare,
        m.Promise,
        m.Accept,
        m.Accepted,
        m.Nack,
        m.Decide,
        m.Heartbeat,
        m.HeartbeatReply,
        m.CatchUp,
        m.CatchUpReply,
        m.Forward,
        m.ReadRequest,
        m.ReadReply,
        m.ChangeRequest,
        m.ChangeReply,
        m.HandOver,
    )
}

LINK = re.compile(r"(\d+|\*)->(\d+|\*)")


@dataclass
class Pattern:
    """One of the alternatives. 0, and None, stand for any."""

    sender: int = 0
    to: int = 0
    kind: type[m.Message] | None = None
    slot: int = 0
    ballot: Ballot | None = None

    def matches(self, sender: int, to: int, message: m.Message) -> bool:
        """Whether a message is meant."""
        if self.sender not in (0, sender) or self.to not in (0, to):
            return False
        if self.kind is not None and type(message) is not self.kind:
            return False
        if self.ballot is not None and getattr(message, "ballot", None) != self.ballot:
            return False
        if not self.slot:
            return True
        slots = message.slots if isinstance(message, m.Accepted) else (getattr(message, "slot", 0),)
        return self.slot in slots


def parse_ballot(text: str) -> Ballot:
    """``2.1``."""
    round_, _, node = text.partition(".")
    return Ballot(int(round_), int(node))


def parse_patterns(text: str) -> list[Pattern]:
    """Alternatives, separated by commas. Raises ScriptError."""
    return [_parse(part.split()) for part in text.split(",")]


def _parse(words: list[str]) -> Pattern:
    pattern = Pattern()
    rest = iter(words)
    for word in rest:
        link = LINK.fullmatch(word)
        if link is not None:
            pattern.sender, pattern.to = (0 if end == "*" else int(end) for end in link.groups())
        elif word in KINDS:
            pattern.kind = KINDS[word]
        elif word == "slot":
            pattern.slot = int(next(rest))
        elif word == "ballot":
            pattern.ballot = parse_ballot(next(rest))
        else:
            raise ScriptError(f"{word!r} is neither a kind of message nor a link such as 1->2")
    return pattern


def meant(patterns: list[Pattern], sender: int, to: int, message: m.Message) -> bool:
    """Whether any alternative means the message."""
    return any(p.matches(sender, to, message) for p in patterns)
