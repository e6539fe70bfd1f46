"""``paxos-rsm server`` with every write, sync and frame to a peer noted, in the order in which they happened.

Run as a program, in place of ``python -m paxos_rsm.cli server``. Before anything of the server is imported it wraps the
system calls that the storage makes (``os.pwrite``, ``os.fdatasync``) and the one method by which gRPC writes on an
outgoing stream. The server itself is the ordinary one; neither a compiler nor a tracer is needed.

The trace lies beside the data directory, ``DIR.trace``, is appended to by every process, and is read by
``tests/integration/traces.py``. One lock orders the events of a process:

- a write is noted *after* the system has taken it, the beginning of a sync before, and its end after it has returned,
  a frame *before* it is written: so whatever the trace says is durable before a frame left was so;
- each event has the time of CLOCK_MONOTONIC, which is the same for all processes of a machine, so that the traces of
  several servers can be laid beside each other.

Environment: ``TRACE_WITHOUT_SYNC=1`` takes the sync out: fdatasync returns at once, and is not noted.
``TRACE_SYNC_DELAY_MS=N`` makes each sync last a random time up to N ms longer, so that a server which does not wait
for it is seen to be ahead of it. A file ``DIR.fail`` beside the data directory makes one sync fail.
"""

import os
import random
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["EVENT", "SEND", "START", "SYNC_BEGIN", "SYNC_END", "WRITE", "fail_path", "trace_path"]

EVENT = struct.Struct(">BQHIQ")
"""Kind, CLOCK_MONOTONIC in ns, length of the path, length of the data, number; then the path and the data.

The number is the offset of a write, the id of the stream of a frame, and the process of a start.
"""

START, WRITE, SYNC_BEGIN, SYNC_END, SEND = range(5)


def fail_path(data_dir: Path) -> Path:
    """A file with the number of an error in it: the next sync removes it, and fails with that error."""
    return data_dir.with_name(data_dir.name + ".fail")


def trace_path(data_dir: Path) -> Path:
    """Where the trace of a server lies."""
    return data_dir.with_name(data_dir.name + ".trace")


class Tracer:
    """Appends events to the trace, by one unbuffered write each: what was noted outlives a SIGKILL."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()

    def note(self, kind: int, path: str = "", data: bytes = b"", number: int = 0) -> None:
        """One event, now."""
        name = path.encode()
        with self._lock:
            head = EVENT.pack(kind, time.monotonic_ns(), len(name), len(data), number)
            os.write(self._fd, head + name + data)


def path_of(fd: int) -> str:
    """The file that a descriptor stands for."""
    return os.readlink(f"/proc/self/fd/{fd}")


def wrap_storage(tracer: Tracer, failure: Path, *, without_sync: bool, delay_ms: float) -> None:
    """Notes what is written to files, and what is synced; a sync that fails has a beginning and no end."""
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def traced_pwrite(fd: int, data: Any, offset: int) -> int:
        written = pwrite(fd, data, offset)
        tracer.note(WRITE, path_of(fd), bytes(data)[:written], offset)
        return written

    def traced_fdatasync(fd: Any) -> None:
        if without_sync:
            return
        path = path_of(fd)
        tracer.note(SYNC_BEGIN, path)
        time.sleep(random.uniform(0, delay_ms) / 1000)
        if failure.exists():
            number = int(failure.read_text())
            failure.unlink()
            raise OSError(number, os.strerror(number))
        fdatasync(fd)
        tracer.note(SYNC_END, path)

    os.pwrite, os.fdatasync = traced_pwrite, traced_fdatasync


def wrap_streams(tracer: Tracer) -> None:
    """Notes every frame that this process writes on a stream that it opened: those to its peers."""
    from grpc.aio import _call

    write = _call.StreamStreamCall.write

    async def traced_write(self: Any, request: Any) -> None:
        tracer.note(SEND, data=bytes(request), number=id(self))
        await write(self, request)

    _call.StreamStreamCall.write = traced_write  # type: ignore[method-assign]


def main() -> None:
    """Wraps, and becomes the ordinary server."""
    flags = sys.argv[1:]
    data_dir = Path(flags[flags.index("--data-dir") + 1])
    tracer = Tracer(trace_path(data_dir))
    tracer.note(START, number=os.getpid())
    wrap_storage(
        tracer,
        fail_path(data_dir),
        without_sync=os.environ.get("TRACE_WITHOUT_SYNC") == "1",
        delay_ms=float(os.environ.get("TRACE_SYNC_DELAY_MS", "0")),
    )
    wrap_streams(tracer)
    from paxos_rsm.cli import main as paxos_rsm

    sys.argv = ["paxos-rsm", "server", "--until-stdin-closes", *flags]
    paxos_rsm()


if __name__ == "__main__":
    main()
