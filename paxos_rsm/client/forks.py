"""Whether this process may use gRPC, which does not survive a fork with connections open.

A child that was forked while its parent was connected has gRPC's memory without gRPC's threads: whatever it asks for
never comes. It is told so at its first call, instead of being left to wait for a deadline. A parent that has closed
its clients before it forks, and children that are started by ``spawn`` or ``forkserver``, are not concerned.
"""

import os

from paxos_rsm.errors import ClientError

__all__ = ["closed", "opened", "require_usable"]

_open: set[int] = set()
_unusable_since_pid = 0


def opened(connection: object) -> None:
    """Notes that ``connection`` is open from now on."""
    _open.add(id(connection))


def closed(connection: object) -> None:
    """Notes that ``connection`` is closed."""
    _open.discard(id(connection))


def require_usable() -> None:
    """Raises ClientError in a process that was forked while a client of its parent was connected."""
    if _unusable_since_pid:
        raise ClientError(
            f"this process was forked from process {_unusable_since_pid} while a client was connected there, and gRPC "
            "does not survive that: close every client before you fork, or start processes by multiprocessing's "
            "'spawn' or 'forkserver'"
        )


def _after_fork_in_child() -> None:
    global _unusable_since_pid
    if _open:
        _unusable_since_pid = os.getppid()
        _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
