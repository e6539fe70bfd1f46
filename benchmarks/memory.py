"""Bytes of memory that a key takes in the key-value store of one server. ``python -m benchmarks.memory``

    python -m benchmarks.memory --cases 100000x1 100000x5        # a few seconds
    python -m benchmarks.memory -w json

Each case is a process of its own, which fills a store in the way a server does, from encoded commands in frames, and
is told two ways, which see different things:

- *resident*: by how much the process's resident memory grew. It holds what the allocator cannot give away, too.
- *counted*: the sum of what Python says of the size of every object that the store leads to, each once. It does not
  see what the allocator rounds up to; nothing is traced while the store is filled.

After that the store is compacted at its last revision, and the same is told again: what is left is one version of each
key, and no log. The allocator may keep memory that is free by then, so that alone is *counted*.
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from time import process_time
from typing import Any

from paxos_rsm.codec.frames import FrameCodec, commands_frame, register_frame
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, Put
from paxos_rsm.machines.sessions import SessionMachine

FRAME = 256
KEY_BYTES = 16
CASES = ("100000x1", "100000x5", "1000000x1")
SESSION = 1
TIMEOUT_MS = 60_000
UNCOUNTED = (type, type(sys), type(len), type(lambda: None))
"""Classes, modules and functions belong to the program, not to the store."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Bytes of memory a key.")
    parser.add_argument(
        "--cases", nargs="+", default=CASES, help="how many keys, x, how many versions of each"
    )
    parser.add_argument("--value-bytes", type=int, default=200)
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


def resident_bytes() -> int:
    """Of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def counted_bytes(*roots: object) -> int:
    """Every object that ``roots`` lead to, each once."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, UNCOUNTED):
            seen.add(id(one))
            total += sys.getsizeof(one)
            waiting.extend(gc.get_referents(one))
    return total


class Filling:
    """A server's store, and the commands that it has been given."""

    def __init__(self) -> None:
        self.store = KeyValueMachine(KvCodec())
        self._machine = SessionMachine(self.store, FrameCodec())
        self._machine.apply_slot(1, [register_frame(SESSION, TIMEOUT_MS)])
        self._seq = 1

    def apply(self, commands: Sequence[bytes]) -> None:
        """The next slot: one frame of commands, whose results were acknowledged, so that none is kept."""
        slot = self._machine.applied_slot + 1
        frame = commands_frame(SESSION << 16, self._seq, self._seq, commands)
        self._machine.apply_slot(slot, [frame])
        self._seq += len(commands)

    def fill(self, keys: int, versions: int, value_bytes: int) -> None:
        """Writes every key ``versions`` times, each time another value."""
        for version in range(versions):
            for first in range(0, keys, FRAME):
                self.apply(
                    [
                        encode_command(
                            Put(b"k%0*d" % (KEY_BYTES - 1, key), b"%0*d" % (value_bytes, key + version))
                        )
                        for key in range(first, min(first + FRAME, keys))
                    ]
                )


def measure(case: tuple[int, int, int]) -> dict[str, float]:
    """One case, in this process: figures for each key."""
    keys, versions, value_bytes = case
    Filling().fill(FRAME, 1, value_bytes)  # what the code itself needs is there by now
    gc.collect()
    before, started = resident_bytes(), process_time()
    filling = Filling()
    filling.fill(keys, versions, value_bytes)
    took_s = process_time() - started
    gc.collect()
    resident = resident_bytes() - before
    if len(filling.store) != keys:
        raise SystemExit(f"the store has {len(filling.store):,} keys, not {keys:,}")
    counted = counted_bytes(filling.store)
    filling.apply([encode_command(Compact(filling.store.revision))])
    return {
        "keys": keys,
        "versions": versions,
        "value_bytes": value_bytes,
        "resident_bytes_a_key": round(resident / keys, 1),
        "counted_bytes_a_key": round(counted / keys, 1),
        "counted_bytes_a_key_compacted": round(counted_bytes(filling.store) / keys, 1),
        "us_a_write": round(took_s / keys / versions * 1e6, 2),
    }


def main() -> None:
    """Measures and prints."""
    given = arguments()
    sizes = [case.split("x") for case in given.cases]
    cases = [(int(keys), int(versions), given.value_bytes) for keys, versions in sizes]
    # A fresh interpreter for each: memory that one case has freed must not serve the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = list(pool.imap(measure, cases, chunksize=1))
    if given.output == "json":
        print(json.dumps(found))
        return
    for each in found:
        print(
            f"{each['keys']:9,} keys of {KEY_BYTES} bytes, versions {each['versions']} of {each['value_bytes']} bytes: "
            f"{each['resident_bytes_a_key']:,.0f} bytes a key resident, {each['counted_bytes_a_key']:,.0f} counted, "
            f"{each['counted_bytes_a_key_compacted']:,.0f} after a compaction; {each['us_a_write']:.1f} µs a write"
        )


if __name__ == "__main__":
    main()
