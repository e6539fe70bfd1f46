"""Chaos: real servers, broken on purpose and on a schedule, while clients write down what they are answered.

::

    plan       drawn from a seed: which faults, when          kinds     the catalogue of faults and the goals
    faults     what each kind does to the servers             nemesis   carries out the plan
    workload   the clients                                    recorder  history and events, on disk
    observer   who leads, and how each server is              gaps      how long writes stood still
    attribution  who made the revisions that nobody was told of
    verdict    every check of a run                           outcome   what a run came to
    report     one HTML file                                  charts    its drawings
    run        all of it, from start to verdict

The simulator (``paxos_rsm.sim``) tries far more schedules, in ticks, and repeats each to the byte. What it cannot show
are the parts that it replaces: real processes, sockets, disks, clocks, gRPC, and the SDK's own retries. That is what
is tried here. docs/CHAOS.md tells how to read a report.
"""

from paxos_rsm.testing.chaos.outcome import Check, RunResult
from paxos_rsm.testing.chaos.plan import Plan, draw_plan
from paxos_rsm.testing.chaos.run import ChaosSettings, Progress, missing_needs, run_chaos

__all__ = [
    "ChaosSettings",
    "Check",
    "Plan",
    "Progress",
    "RunResult",
    "draw_plan",
    "missing_needs",
    "run_chaos",
]
