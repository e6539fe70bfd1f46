"""Whether disk and memory stay bounded however much is written: three servers, one client, and a plot.

Values are written over a fixed set of keys as fast as the cluster takes them, and revisions are compacted as they get
old, as a real user would; every two seconds the data directories and the memory of the servers are looked at::

    python benchmarks/soak.py                                  # 10 GB with a log limit of 64 MB, some minutes
    python benchmarks/soak.py --gigabytes 1 --plot soak.svg

The plot wants matplotlib (``pip install 'paxos-rsm[plots]'``).
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from paxos_rsm.client import AsyncClient
from paxos_rsm.testing.cluster import LocalCluster

IN_FLIGHT = 256
LOOK_S = 2.0
COMPACT_S = 2.0
KEEP_REVISIONS = 2_000


@dataclass(frozen=True)
class Look:
    """One look at a server; sizes in bytes."""

    at_s: float
    server: str
    written: int
    log: int
    snapshots: int
    memory: int
    compacted_slot: int
    applied_slot: int


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Disk and memory under writes without end.")
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--log-mib", type=int, default=64)
    parser.add_argument("--value-bytes", type=int, default=4_096)
    parser.add_argument("--keys", type=int, default=5_000)
    parser.add_argument("--plot", type=Path, help="an SVG to draw")
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


class Soak:
    """One run."""

    def __init__(self, cluster: LocalCluster, given: argparse.Namespace) -> None:
        self.cluster = cluster
        self.given = given
        self.written = 0
        self.revision = 0
        self.looks: list[Look] = []
        self.started = time.monotonic()
        self.done = False

    async def run(self) -> None:
        """Writes until it is enough."""
        async with AsyncClient(self.cluster.endpoints) as client:
            looking = asyncio.create_task(self._look_on())
            compacting = asyncio.create_task(self._compact(client))
            await asyncio.gather(*(self._write(client, number) for number in range(IN_FLIGHT)))
            self.done = True
            await asyncio.gather(looking, compacting)

    async def _write(self, client: AsyncClient, number: int) -> None:
        size, keys = self.given.value_bytes, self.given.keys
        limit = self.given.gigabytes * 1e9
        value = bytes(range(256)) * (size // 256 + 1)
        turn = number
        while self.written < limit:
            result = await client.put(b"key-%06d" % (turn % keys), value[turn % 256 :][:size])
            self.revision = max(self.revision, result.revision)
            self.written += size
            turn += IN_FLIGHT

    async def _compact(self, client: AsyncClient) -> None:
        done = 0
        while not self.done:
            await asyncio.sleep(COMPACT_S)
            wanted = self.revision - KEEP_REVISIONS
            if wanted > done:
                await client.compact(wanted)
                done = wanted

    async def _look_on(self) -> None:
        while not self.done:
            self.looks += await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_S)

    def _look(self) -> list[Look]:
        at_s = time.monotonic() - self.started
        found = []
        for name, status in self.cluster.statuses().items():
            directory = self.cluster[name].data_dir
            found.append(
                Look(
                    round(at_s, 1),
                    name,
                    self.written,
                    disk_bytes(directory / "log"),
                    disk_bytes(directory / "snapshots"),
                    status.memory_bytes,
                    status.compacted_slot,
                    status.applied_slot,
                )
            )
        return found


def have_one_state(cluster: LocalCluster) -> bool:
    """Whether all servers have applied the same, and hold the same."""
    statuses = cluster.statuses(digest=True).values()
    return len({(status.applied_slot, status.digest) for status in statuses}) == 1


def disk_bytes(directory: Path) -> int:
    """What the files of a directory take from the disk."""
    total = 0
    for path in directory.glob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # just dropped
    return total


def draw(looks: Sequence[Look], path: Path, title: str) -> None:
    """The plot: over what was written, what is on the disk and in memory of each server."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "paxos_rsm"
    figure, (disk, memory) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6))
    for name in sorted({look.server for look in looks}):
        mine = [look for look in looks if look.server == name]
        written = [look.written / 1e9 for look in mine]
        disk.plot(
            written, [(look.log + look.snapshots) / 1e6 for look in mine], label=f"{name}: log and snapshots"
        )
        memory.plot(written, [look.memory / 1e6 for look in mine], label=name)
    disk.set_ylabel("on disk, MB")
    memory.set_ylabel("resident, MB")
    memory.set_xlabel("values written, GB")
    disk.set_title(title)
    for axes in (disk, memory):
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Runs, draws and prints."""
    given = arguments()
    options: dict[str, str | int] = {"snapshot-log-bytes": given.log_mib << 20, "log-segment-bytes": 16 << 20}
    with LocalCluster(3, options=options) as cluster:
        cluster.start()
        cluster.wait_for_leader(everyone=True)
        soak = Soak(cluster, given)
        asyncio.run(soak.run())
        cluster.wait_until(lambda: have_one_state(cluster), "one state on all servers")
    half = [look for look in soak.looks if look.written > given.gigabytes * 5e8]
    found = {
        "gigabytes": given.gigabytes,
        "log_limit_mb": round(given.log_mib * 1.048576),
        "seconds": round(soak.looks[-1].at_s),
        "disk_mb_max": round(max(look.log + look.snapshots for look in soak.looks) / 1e6),
        "disk_mb_max_second_half": round(max(look.log + look.snapshots for look in half) / 1e6),
        "memory_mb_max": round(max(look.memory for look in soak.looks) / 1e6),
        "memory_mb_max_second_half": round(max(look.memory for look in half) / 1e6),
    }
    if given.plot:
        title = (
            f"{given.gigabytes:g} GB in values of {given.value_bytes} bytes, log limit {given.log_mib} MiB"
        )
        draw(soak.looks, given.plot, title)
    if given.output == "json":
        print(json.dumps({**found, "looks": [asdict(look) for look in soak.looks]}))
    else:
        print(", ".join(f"{name} {each}" for name, each in found.items()))


if __name__ == "__main__":
    main()
