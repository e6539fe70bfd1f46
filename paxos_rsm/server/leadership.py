"""Whether there is a leader, and waiting until there is one.

An election takes a few hundred milliseconds: a request that comes meanwhile waits for it rather than fail. It does
not wait longer than that, because a server that is cut off from the majority would let its callers run into their
deadlines, where a clear answer sends them to another server.
"""

import asyncio

from paxos_rsm.replica.api import ReplicaHandle

__all__ = ["Leadership"]


class Leadership:
    """Follows what the replica says of the leader."""

    def __init__(self, replica: ReplicaHandle) -> None:
        self.has_leader = False
        self._known = asyncio.Event()
        replica.watch_leader(self._changed)

    def _changed(self, has_leader: bool) -> None:
        self.has_leader = has_leader
        if has_leader:
            self._known.set()
        else:
            self._known.clear()

    async def wait(self, timeout_s: float) -> bool:
        """Whether there is a leader, after at most ``timeout_s``."""
        if not self.has_leader and timeout_s > 0:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._known.wait()
            except TimeoutError:
                pass
        return self.has_leader
