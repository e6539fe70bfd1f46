"""What 100,000 leases cost a server: processor time of one, without a network. ``python -m benchmarks.leases``

The commands go through the real codec, store and timers, as on any server; a round of keep-alives is what comes within
a third of the leases' time. Last, all of them run out in the same tick.
"""

import statistics
import time
from collections.abc import Callable

from paxos_rsm.codec.frames import FrameCodec, commands_frame, register_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Command, LeaseGrant, LeaseKeepAlive, Put
from paxos_rsm.machines.sessions import SessionMachine
from paxos_rsm.paxos.types import Ballot
from paxos_rsm.replica.timers import Timers

LEASES = 100_000
TTL_S = 60
TICK_MS = 25
FRAME = 256
ROUNDS = 5


class Bench:
    """One server's store and timers."""

    def __init__(self) -> None:
        self.store = KeyValueMachine(KvCodec())
        self.machine = SessionMachine(self.store, FrameCodec())
        self.timers = Timers(TICK_MS)
        self.machine.apply_slot(1, [register_frame(1, 60_000)])
        self._seq = 1

    def apply(self, make: Callable[[int], Command]) -> float:
        """Seconds of processor time for one command of each lease, in frames that are encoded beforehand."""
        frames = []
        for first in range(1, LEASES + 1, FRAME):
            commands = [encode_command(make(lease)) for lease in range(first, min(first + FRAME, LEASES + 1))]
            frames.append(commands_frame(1 << 16, self._seq, self._seq, commands))
            self._seq += len(commands)
        started = time.process_time()
        for frame in frames:
            self.machine.apply_slot(self.machine.applied_slot + 1, [frame])
        return time.process_time() - started

    def tick(self) -> tuple[float, list[bytes]]:
        """Seconds of one tick, and what it proposes."""
        started = time.process_time()
        frames = self.timers.tick(Ballot(1, 1), True, self.machine)
        return time.process_time() - started, frames


def main() -> None:
    """Prints one line for each figure."""
    bench = Bench()
    granted = bench.apply(lambda lease: LeaseGrant(TTL_S, lease))
    bench.apply(lambda lease: Put(b"key/%d" % lease, b"v", lease))
    first, _ = bench.tick()
    print(
        f"granting {LEASES:,}: {granted / LEASES * 1e6:.1f} µs each; the tick that sees them all: {first * 1e3:.0f} ms"
    )
    renewed, ticks = [], []
    for _ in range(ROUNDS):
        renewed.append(bench.apply(LeaseKeepAlive) / LEASES)
        ticks.append(bench.tick()[0])
    print(
        f"keeping one alive: median {statistics.median(renewed) * 1e6:.1f} µs; the tick that sees a whole round: "
        f"{statistics.median(ticks) * 1e3:.0f} ms"
    )
    quiet = [bench.tick()[0] for _ in range(TTL_S * 1000 // TICK_MS - 1)]
    print(f"a quiet tick: median {statistics.median(quiet) * 1e6:.1f} µs, longest {max(quiet) * 1e3:.1f} ms")
    ends: list[float] = []
    longest_tick = 0.0
    while bench.store.lease_ids():
        seconds, frames = bench.tick()
        longest_tick = max(longest_tick, seconds)
        started = time.process_time()
        if frames:
            bench.machine.apply_slot(bench.machine.applied_slot + 1, frames)
            ends.append(time.process_time() - started)
    print(
        f"all at once: in {len(ends)} slots, median {statistics.median(ends) * 1e3:.1f} ms each to apply, longest "
        f"{max(ends) * 1e3:.1f} ms; the longest tick {longest_tick * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
