"""A replicated counter: a whole state machine, to copy from.

Serve it, one server or many (every server must run the same class), from the folder that holds ``examples``::

    paxos-rsm server --machine examples.counter:Counter
    paxos-rsm cluster --machine examples.counter:Counter

and use it from anywhere; a command that is retried after a lost reply still adds only once::

    async with AsyncClient(["127.0.0.1:2379"]) as client:
        await client.submit(b"5")       # adds 5, answers b"5"
        await client.submit(b"five")    # answers b"error: not a number of at most 19 characters"
        await client.query(b"")         # answers b"5", linearizable, without changing anything
"""

from paxos_rsm.machines.base import Position, SimpleMachine


class Counter(SimpleMachine):
    """Adds up the numbers it is sent."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, command: bytes, at: Position) -> bytes:
        """Adds a decimal number and answers the new total. Bad input is answered, never raised."""
        if len(command) > 19 or not command.removeprefix(b"-").isdigit():
            return b"error: not a number of at most 19 characters"
        self.total += int(command)
        return b"%d" % self.total

    def query(self, request: bytes) -> bytes:
        """Answers the total, whatever was asked."""
        return self.dump()

    def dump(self) -> bytes:
        """The whole state, for snapshots."""
        return b"%d" % self.total

    def load(self, state: bytes) -> None:
        """The way back."""
        self.total = int(state)
