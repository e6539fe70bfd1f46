"""What a large store costs a server: memory, snapshots, the longest pauses. ``python -m benchmarks.large_state``

    python -m benchmarks.large_state                                  # a million keys; some minutes
    python -m benchmarks.large_state --keys 100000 --leases 10000     # seconds
    python -m benchmarks.large_state -w json

The store is filled as a server does it, from encoded commands in frames: ``--keys`` keys of 16 bytes with
``--value-bytes`` each, a fifth of them written twice, and ``--leases`` leases. Then, in this order:

- *snapshot*, while frames of 256 puts are applied between the slices: first with everything above the last compaction,
  then while a compaction of all of it arrives, then with everything below it and as many new keys above.
  Told are the longest of: the call, one slice, one frame between them, and closing it.
- *restore* of the first of these into a process of its own, from bytes that lie in a file.
- *gc*: a full collection of Python's garbage collector, which looks at every container, before and after
  ``gc.freeze()``.

All times are of the processor. The collector is on, as it is on a server: its pauses are part of what is told. With
``--freeze`` it is told after making the store, and after each snapshot, not to look again at what is there by then.
"""

import argparse
import gc
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.memory import FRAME, KEY_BYTES, SESSION, Filling, resident_bytes
from paxos_rsm.codec.frames import FrameCodec
from paxos_rsm.codec.kv import KvCodec, encode_command
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, LeaseGrant, Put
from paxos_rsm.machines.sessions import SessionMachine

MEGABYTE = 1 << 20
CHUNK_BYTES = 256 * 1024


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="What a large store costs.")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--freeze", action="store_true", help="call gc.freeze() now and then")
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


def puts(keys: range, value_bytes: int, mark: bytes) -> Iterator[bytes]:
    """An encoded put for each key; they are not in the order of keys."""
    for number in keys:
        key = b"k%0*d" % (KEY_BYTES - 1, number * 7_919 % 1_000_003 + number // 1_000_003)
        yield encode_command(Put(key, (mark + b"%d" % number).ljust(value_bytes, b".")))


class Longest:
    """The longest of the steps that were timed, and all of them together, in seconds."""

    def __init__(self) -> None:
        self.longest = self.total = 0.0

    def time(self, step: Callable[[], Any]) -> Any:
        started = process_time()
        given = step()
        took = process_time() - started
        self.longest = max(self.longest, took)
        self.total += took
        return given

    @property
    def ms(self) -> float:
        return round(self.longest * 1000, 1)


class Store(Filling):
    """A store that is written to while it is snapshotted."""

    def __init__(self, value_bytes: int) -> None:
        super().__init__()
        self._value_bytes = value_bytes
        self._written = 0

    def write(self, keys: range, mark: bytes) -> Longest:
        """Puts every key once, in frames."""
        frames = Longest()
        waiting: list[bytes] = []
        for command in puts(keys, self._value_bytes, mark):
            waiting.append(command)
            if len(waiting) == FRAME:
                frames.time(partial(self.apply, waiting))
                waiting = []
        if waiting:
            self.apply(waiting)
        return frames

    def grant(self, leases: int) -> None:
        """Leases, with numbers in no order."""
        for first in range(0, leases, FRAME):
            numbers = range(first, min(first + FRAME, leases))
            self.apply([encode_command(LeaseGrant(60, number * 7_919 % 1_000_003 + 1)) for number in numbers])

    def snapshot(self, keys: int, out: Path | None = None, compact: bool = False) -> dict[str, float]:
        """Takes one, and applies a frame between any two slices; ``compact`` at everything, after the first."""
        call, slices, frames, close = Longest(), Longest(), Longest(), Longest()
        view = call.time(self._machine.snapshot)
        size = pauses = 0
        file = out.open("wb") if out is not None else None
        while (data := slices.time(lambda: next(view, None))) is not None:
            size += len(data)
            pauses += not data
            if file is not None:
                file.write(data)
            start = self._written % keys
            self._written += FRAME
            commands = list(puts(range(start, min(start + FRAME, keys)), self._value_bytes, b"during"))
            if compact:
                commands.append(encode_command(Compact(self.store.revision)))
                compact = False
            frames.time(partial(self.apply, commands))
        close.time(view.close)
        if file is not None:
            file.close()
        return {
            "bytes": size,
            "seconds": round(slices.total, 2),
            "pauses": pauses,
            "call_ms": call.ms,
            "slice_ms": slices.ms,
            "frame_ms": frames.ms,
            "close_ms": close.ms,
        }


def collection() -> float:
    """Milliseconds of a full collection."""
    full = Longest()
    full.time(gc.collect)
    return full.ms


def measure(keys: int, value_bytes: int, leases: int, freeze: bool, path: Path) -> dict[str, Any]:
    """Everything but the restoring, in this process."""
    settle = gc.freeze if freeze else int
    Store(value_bytes).write(range(FRAME), b"warm")
    gc.collect()
    before = resident_bytes()
    store = Store(value_bytes)
    settle()
    store.write(range(keys), b"first")
    filled = resident_bytes()
    frames = store.write(range(keys // 5), b"second")
    store.grant(leases)
    found: dict[str, Any] = {
        "keys": keys,
        "value_bytes": value_bytes,
        "leases": leases,
        "process_mb_before": before // MEGABYTE,
        "resident_bytes_a_key": round((filled - before) / keys, 1),
        "process_mb_with_a_fifth_twice": resident_bytes() // MEGABYTE,
        "state_mb_as_counted": store.store.state_bytes // MEGABYTE,
        "us_a_put": round(frames.total / (keys // 5) * 1e6, 2),
        "snapshot": store.snapshot(keys, path),
    }
    settle()
    found["snapshot_compacted_meanwhile"] = store.snapshot(keys, compact=True)
    settle()
    tidying = Longest()
    while tidying.time(lambda: store.store.tidy(1000)):
        pass
    store.write(range(keys, 2 * keys), b"new")
    found["tidying"] = {"seconds": round(tidying.total, 2), "ms_a_thousand_records": tidying.ms}
    found["snapshot_with_as_many_new_keys"] = store.snapshot(keys)
    found["gc_ms"] = collection()
    gc.freeze()
    found["gc_ms_frozen"] = collection()
    return found


def restore(path: Path) -> dict[str, float]:
    """In this process: from a file, as a server starts."""
    machine = SessionMachine(KeyValueMachine(KvCodec()), FrameCodec())
    before, took = resident_bytes(), Longest()
    with path.open("rb") as file:
        took.time(lambda: machine.restore(iter(lambda: file.read(CHUNK_BYTES), b"")))
    if machine.session(SESSION << 16) is None:
        raise SystemExit("the session is not there after the restoring")
    return {
        "seconds": round(took.total, 2),
        "process_mb": resident_bytes() // MEGABYTE,
        "grown_mb": (resident_bytes() - before) // MEGABYTE,
        "gc_ms": collection(),
    }


def main() -> None:
    """Measures and prints."""
    given = arguments()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "snapshot")
        # A fresh interpreter for each: memory that one has freed must not serve the next.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            found = pool.apply(measure, (given.keys, given.value_bytes, given.leases, given.freeze, path))
            found["restore"] = pool.apply(restore, (path,))
    if given.output == "json":
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32} {json.dumps(value) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
