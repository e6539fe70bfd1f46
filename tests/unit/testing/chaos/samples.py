"""A run that never was, for what renders one."""

from typing import Any

from paxos_rsm.testing.chaos.gaps import Gap, Occurrence, figures
from paxos_rsm.testing.chaos.outcome import Check, RunResult
from paxos_rsm.testing.chaos.plan import draw_plan

__all__ = ["occurrences", "sample"]


def occurrences(count: int = 3, kind: str = "leader-kill") -> list[Occurrence]:
    """``count`` faults, with gaps of 300, 310, ... ms."""
    return [
        Occurrence(
            number,
            kind,
            begin_ms=10_000.0 * (number + 1),
            end_ms=10_000.0 * (number + 1) + 2_000,
            victims=("n1",),
            what="killed n1, the leader",
            window_end_ms=10_000.0 * (number + 1) + 7_000,
            gap=Gap(10_000.0, 10_300.0 + 10 * number),
            held_gap_ms=300.0 + 10 * number,
            leader_changes=1,
            stall_ms=12.0,
        )
        for number in range(count)
    ]


def sample(**other: Any) -> RunResult:
    """A run of which everything is right, but for what is given."""
    found = other.pop("occurrences", occurrences())
    given: dict[str, Any] = {
        "plan": draw_plan(7, servers=3, minutes=1, only=["leader-kill"]),
        "version": "0.1",
        "repeat": "paxos-rsm chaos --seed 7",
        "began": "2026-01-02 03:04:05",
        "ran_s": 60.0,
        "checks": [Check("linearizable, key by key", "ok", "100 operations on 4 keys")],
        "occurrences": found,
        "figures": figures(found),
        "calm_gap_ms": 31.0,
        "leader_changes": 3,
        "seconds": [(100 + second % 7, 40, 3.0, 9.5 if second % 5 else None) for second in range(60)],
        "latencies": {"put": {"count": 100, "p50_ms": 3.0, "p90_ms": 5.0, "p99_ms": 9.0, "max_ms": 300.0}},
        "statuses": {"ok": 8_400, "unknown": 12, "fail": 3},
        "errors": {"UnknownOutcome": 12, "Unavailable": 3},
        "events": [
            {"t": 0.0, "event": "role", "server": "n1", "role": "leader", "round": 1},
            {"t": 0.0, "event": "role", "server": "n2", "role": "follower", "round": 1},
            {"t": 10_000.0, "event": "role", "server": "n1", "role": "down", "round": 0},
            {"t": 10_300.0, "event": "role", "server": "n2", "role": "leader", "round": 2},
        ],
        "directory": "out",
    }
    return RunResult(**{**given, **other})
