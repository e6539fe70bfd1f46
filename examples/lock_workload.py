"""What clients of ``examples/locks.py`` ask for, and what must be true of the answers; see docs/TESTING.md."""

from random import Random

OWNERS = ("anna", "bert", "carla")


class LockWorkload:
    """Three owners and two locks. Each answer is held against who has which lock."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        """Drawn from ``rnd`` and nothing else, so that the seed repeats it."""
        return f"{rnd.choice(['acquire', 'release'])} {self.lock(rnd)} {rnd.choice(OWNERS)}".encode()

    def query(self, rnd: Random) -> bytes:
        """Who holds a lock?"""
        return self.lock(rnd).encode()

    def lock(self, rnd: Random) -> str:
        """One of the locks."""
        return rnd.choice(["door", "gate"])

    def answered(self, command: bytes, result: bytes) -> None:
        """Called for every command, in the order of the log. What it raises fails the seed."""
        verb, lock, owner = command.decode().split(" ")
        if result == b"yours":
            self.expect(lock, self.holders.setdefault(lock, owner), owner)
        elif verb == "release" and not result.startswith(b"error"):
            self.expect(lock, self.holders.pop(lock, ""), owner)
            if result != b"free":
                self.holders[lock] = result.decode().removeprefix("given to ")

    def queried(self, request: bytes, result: bytes) -> None:
        """Called for queries that were answered after all of the commands so far."""
        self.expect(request.decode(), self.holders.get(request.decode(), ""), result.decode())

    def expect(self, lock: str, holder: str, told: str) -> None:
        """Only one can hold a lock."""
        if holder != told:
            raise AssertionError(f"the {lock} is held by {holder or 'nobody'}, not by {told or 'nobody'}")
