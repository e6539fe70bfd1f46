"""What a run of the simulator says when something is broken."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Broken", "Failure", "Result"]


class Broken(Exception):
    """A rule does not hold. ``rule`` is its number in docs/PROTOCOL.md, or a word such as ``liveness``."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"rule {rule}: {message}" if rule.isdigit() else f"{rule}: {message}")
        self.rule = rule
        self.message = message


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, and when."""

    rule: str
    message: str
    event: int
    """The number of the event after which it showed."""
    tick: int

    def __str__(self) -> str:
        return f"{self.message} (after event {self.event}, tick {self.tick})"


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    events: int
    trace_hash: str
    """Of everything that happened, in order: the same on every machine."""
    failure: Failure | None = None
    fired: Counter[str] = field(default_factory=Counter)
    """How often each fault, and each kind of event, happened."""
    healed_in_ticks: int = 0
    """Ticks from the end of the faults until all was well; 0 where that was not reached."""
    trace: list[str] = field(default_factory=list)
    """Who did what, where it was asked for."""
