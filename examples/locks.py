"""A replicated lock service: who waits for a lock gets it when it is released, first come, first served.

``examples/wrong_locks.py`` is the same with a bug; docs/TESTING.md tells how ``simulate`` finds it.
"""

import json

from paxos_rsm.machines.base import Position, SimpleMachine


class Locks(SimpleMachine):
    """``acquire LOCK OWNER`` and ``release LOCK OWNER``; who has waited longest gets it next."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}
        self.waiting: dict[str, list[str]] = {}

    def apply(self, command: bytes, at: Position) -> bytes:
        """Executes one command. Bad input is answered, never raised."""
        match command.decode("latin-1").split(" "):
            case ["acquire", lock, owner]:
                return self.acquire(lock, owner)
            case ["release", lock, owner]:
                return self.release(lock, owner)
        return b"error: say acquire LOCK OWNER, or release LOCK OWNER"

    def acquire(self, lock: str, owner: str) -> bytes:
        """Takes the lock, or waits for it."""
        if self.holders.setdefault(lock, owner) == owner:
            return b"yours"
        waiting = self.waiting.setdefault(lock, [])
        if owner not in waiting:
            waiting.append(owner)
        return b"wait"

    def release(self, lock: str, owner: str) -> bytes:
        """Gives the lock to the one who has waited longest, where there is one."""
        if self.holders.get(lock) != owner:
            return b"error: not yours"
        if not self.waiting.get(lock):
            del self.holders[lock]
            return b"free"
        self.holders[lock] = self.waiting[lock].pop(0)
        return b"given to " + self.holders[lock].encode("latin-1")

    def query(self, request: bytes) -> bytes:
        """Answers who holds a lock."""
        return self.holders.get(request.decode("latin-1"), "").encode("latin-1")

    def dump(self) -> bytes:
        """The whole state, for snapshots and digests."""
        waiting = {lock: owners for lock, owners in self.waiting.items() if owners}
        return json.dumps([self.holders, waiting], sort_keys=True).encode()

    def load(self, state: bytes) -> None:
        """The way back."""
        self.holders, self.waiting = json.loads(state)
