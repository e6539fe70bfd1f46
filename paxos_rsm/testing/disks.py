"""A small disk for one server, which can be full: a tmpfs of a given size.

What a full disk does, a real one does best: the log allocates its space ahead, so writes go on for a while in what was
allocated, and the failure comes from the middle of the storage. It takes the right to mount (root); without it
:class:`paxos_rsm.testing.errors.FaultUnavailable` says so, and :mod:`paxos_rsm.testing.shim` can refuse space to a
server without any right.

The disk is memory, taken as it is written. It is gone, with all that was on it, when it is unmounted, and that is when
the cluster is closed: a restart of the server finds its data. Where this process is killed, the mount is left behind;
``umount`` by hand takes it away.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError

__all__ = ["SmallDisk"]

COMMAND_TIMEOUT_S = 20.0
BALLAST = "ballast"
_CHUNK = bytes(1 << 20)


class SmallDisk:
    """A file system of ``size_bytes`` under ``path``."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes

    @property
    def mounted(self) -> bool:
        """Whether it is there."""
        return os.path.ismount(self.path)

    @property
    def free_bytes(self) -> int:
        """What can still be written. Raises OSError where it is not mounted."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def mount(self) -> None:
        """Makes it, empty; nothing where it is there already. Raises FaultUnavailable."""
        if self.mounted:
            return
        what = f"a disk of {self.size_bytes >> 20} MiB (a tmpfs)"
        instead = "or make the cluster with shim=True and use faults.no_space()"
        if not sys.platform.startswith("linux"):
            raise FaultUnavailable(f"{what} needs Linux; this is {sys.platform}: skip this, {instead}")
        if os.geteuid() != 0:
            raise FaultUnavailable(
                f"to mount {what} takes root, and this is user {os.geteuid()}: become root, {instead}"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        said = _run(
            "mount", "-t", "tmpfs", "-o", f"size={self.size_bytes},mode=700", "paxos-rsm", str(self.path)
        )
        if said is not None:
            raise FaultUnavailable(
                f"{what} cannot be mounted: {said}; it takes the right CAP_SYS_ADMIN, {instead}"
            )

    def fill(self) -> None:
        """Leaves no byte free, by a file of its own. Raises LocalClusterError where it is not mounted."""
        if not self.mounted:
            raise LocalClusterError(f"the disk {self.path} is not mounted: start its server first")
        with contextlib.suppress(OSError), (self.path / BALLAST).open("ab", buffering=0) as ballast:
            while True:
                # A short write is how the last free bytes are taken; the next one fails.
                ballast.write(_CHUNK)

    def free(self) -> None:
        """Takes back what :meth:`fill` did."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / BALLAST).unlink()

    def unmount(self) -> None:
        """Removes it with all that is on it; nothing where it is not there."""
        if self.mounted and _run("umount", str(self.path)) is not None:
            _run("umount", "-l", str(self.path))  # somebody looks at it still


def _run(*command: str) -> str | None:
    """None where it succeeded, else why not."""
    if shutil.which(command[0]) is None:
        return f"there is no command {command[0]}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"
