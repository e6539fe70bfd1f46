"""The deterministic simulator: the real code under every fault, from one seed.

What runs is what a server runs: the protocol (``paxos``), the replica's synchronous step, the segment log and the data
directory over a disk in memory, sessions and state machine, and the rules by which peers refuse one another. What is
simulated is everything around it: links, disks, clocks, clients. No wall clock, no socket, no thread: a run is a
function of its seed, on every machine and under every PYTHONHASHSEED.

``run_seed(n)`` plays one seed; ``paxos-rsm sim`` plays many.
"""

from paxos_rsm.sim.failure import Broken, Failure, Result
from paxos_rsm.sim.simulation import Simulation, run_seed
from paxos_rsm.sim.workload import KvWorkload, Workload
from paxos_rsm.sim.world import FAULTS, World

__all__ = [
    "FAULTS",
    "Broken",
    "Failure",
    "KvWorkload",
    "Result",
    "Simulation",
    "Workload",
    "World",
    "run_seed",
]
