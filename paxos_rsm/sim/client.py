"""A simulated client: a session that it takes from server to server, commands in flight, and reads.

What the client SDK does, without its streams: it keeps commands in flight under its session's sequence numbers, goes
to another server when it hears nothing for a while (or on a whim), and submits again there whatever it has no result
for, cut into other frames than before. A session that has expired ends in an error; what was in flight has an unknown
outcome then, and the client begins a new session.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.errors import PaxosRsmError, ResourceExhausted, SessionExpired, Unavailable
from paxos_rsm.paxos.types import Slot
from paxos_rsm.replica.api import SessionHandle
from paxos_rsm.sim.executions import Executions
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.oracle import Oracle
from paxos_rsm.sim.server import SimServer
from paxos_rsm.sim.stage import Stage
from paxos_rsm.sim.workload import Asked, Workload
from paxos_rsm.sim.world import TICK_UNITS, World

__all__ = ["SimClient"]

SLEEP_TICKS_MAX = 60


class _InFlight(NamedTuple):
    seq: int
    command: bytes
    called_at: int


class _Sink:
    """The client's end of one attachment; whatever comes after the client has moved on is lost."""

    def __init__(self, client: "SimClient") -> None:
        self.client = client
        self.current = True

    def opened(self, session: int, next_seq: int) -> None:
        if self.current:
            self.client.opened(session, next_seq)

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        if self.current:
            self.client.results(first_seq, results)

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        if self.current:
            self.client.failed(error)


class SimClient:
    """See the module's docstring."""

    def __init__(
        self,
        number: int,
        stage: Stage,
        world: World,
        servers: Mapping[int, SimServer],
        oracle: Oracle,
        executions: Executions,
        workload: Workload,
        history: list[Asked] | None = None,
    ) -> None:
        self.number = number
        self._stage = stage
        self._world = world
        self._servers = servers
        self._oracle = oracle
        self._executions = executions
        self._workload = workload
        self._history = history
        self._random = stage.chance(f"client {number}")
        self.session = 0
        self.next_seq = 1
        self.in_flight: dict[int, _InFlight] = {}
        """What has no result yet, by sequence number, in order."""
        self.reading = 0
        """Reads that wait for an answer."""
        self.home: int | None = None
        """The only server it uses; None: any."""
        self.commands_left: int | None = None
        """How many more it makes; None: no end."""
        self.reads_left: int | None = None
        """Likewise."""
        self.answered = 0
        self.read = 0
        self._made = 0
        self._server: SimServer | None = None
        self._life = 0
        self._handle: SessionHandle | None = None
        self._sink = _Sink(self)
        self._is_open = False
        self._submitted_through = 0
        self._heard_at = 0
        self._wakes_at = 0

    # ---- what it does ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to act, now and then."""
        self._act_later()

    def _act_later(self) -> None:
        units = self._world.client_units
        self._stage.schedule(1 + int(self._random.random() * 2 * units), self.act)

    def act(self) -> None:
        """Looks after its attachment, submits something, or reads."""
        if self.home is None and self.commands_left == 0 and self.reads_left == 0 and not self.in_flight:
            return  # all is done
        self._act_later()
        if self._stage.now < self._wakes_at:
            return
        stage, rnd, server = self._stage, self._random, self._server
        if server is None or not server.up or server.life != self._life or self._handle is None:
            self._move()
            return
        if server.paused_until > stage.now and rnd.random() < 0.9:
            return
        waits = bool(self.in_flight) or not self._is_open
        if waits and stage.now - self._heard_at > self._world.patience_ticks * TICK_UNITS:
            stage.fire("impatience")
            self._move()
            return
        if self._wanders():
            return
        if self._is_open:
            self._submit()
        if self.reads_left != 0 and self.reading < 2 and rnd.random() < self._world.reads:
            self._read()

    def _wanders(self) -> bool:
        """On a whim: goes elsewhere, is away for a while, or begins a new session."""
        world, rnd = self._world, self._random
        if rnd.random() < world.moves:
            self._stage.fire("move")
            self._move()
        elif world.sleeps and rnd.random() < world.sleeps:
            self._stage.fire("sleep")
            self._leave()
            self._wakes_at = self._stage.now + rnd.randint(1, SLEEP_TICKS_MAX) * TICK_UNITS
        elif world.ends and not self.in_flight and self._is_open and rnd.random() < world.ends:
            self._stage.fire("session ended")
            self._leave(ended=True)
            self.session, self.next_seq = 0, 1
        else:
            return False
        return True

    def _move(self) -> None:
        """To some server that runs, with the session that it has."""
        self._leave()
        numbers = [self.home] if self.home is not None else list(self._servers)
        able = [
            n for n in numbers if self._servers[n].up and self._servers[n].paused_until <= self._stage.now
        ]
        if not able:
            return
        server = self._servers[self._random.choice(able)]
        self._server, self._life = server, server.life
        self._sink = _Sink(self)
        self._heard_at = self._stage.now
        server.call(self._attach, server)

    def _attach(self, server: SimServer) -> None:
        self._handle = server.replica.attach(self._sink, self.session)

    def _leave(self, *, ended: bool = False) -> None:
        self._sink.current = False
        self._is_open = False
        self.reading = 0
        server, handle = self._server, self._handle
        self._server = self._handle = None
        if server is None or handle is None or not server.up or server.life != self._life:
            return
        if ended:
            server.call(handle.end)
        elif self._random.random() < 0.7:
            server.feed(handle.close)
        # Else it is gone without a word, and the server goes on with an attachment that nobody listens to.

    def _submit(self) -> None:
        world, rnd = self._world, self._random
        room = world.in_flight_max - len(self.in_flight)
        if self.commands_left is not None:
            room = min(room, self.commands_left)
        for _ in range(rnd.randint(0, min(room, world.frame_commands_max)) if room > 0 else 0):
            self._made += 1
            if self.commands_left is not None:
                self.commands_left -= 1
            command = self._workload.command(rnd, self.number, self._made)
            self.in_flight[self.next_seq] = _InFlight(self.next_seq, command, self._stage.now)
            self.next_seq += 1
        fresh = [each for each in self.in_flight.values() if each.seq > self._submitted_through]
        if fresh and self._server is not None:
            count, first_seq = rnd.randint(1, world.frame_commands_max), fresh[0].seq
            # A frame has no hole: a command that was answered out of turn ends it.
            frame = [each for at, each in enumerate(fresh[:count]) if each.seq == first_seq + at]
            self._server.call(self._submit_frame, frame)

    def _submit_frame(self, part: list[_InFlight]) -> None:
        handle = self._handle
        if handle is None:
            return
        frame = commands_frame(
            self.session, part[0].seq, self._received_below(), [each.command for each in part]
        )
        try:
            handle.submit(frame, part[0].seq, len(part))
        except (Unavailable, ResourceExhausted):
            return  # it moves on when it becomes impatient
        self._submitted_through = part[-1].seq

    def _read(self) -> None:
        server = self._server
        if server is None:
            return
        request = self._workload.query(self._random)
        asked_at, called_at, sink = self._oracle.applied_through, self._stage.now, self._sink

        def done(applied: Slot | None) -> None:
            if not sink.current:
                return
            self.reading -= 1
            if applied is None:
                self._stage.fire("read refused")
                return
            server.serves(applied)
            self._oracle.reads(server.node, asked_at, applied)
            if applied != server.replica.machine.applied_slot:
                raise Broken("8", f"a read at slot {applied} meets the state of another")
            result = server.replica.query(request)
            if applied == self._oracle.applied_through:
                self._workload.queried(request, result)
            self.read += 1
            if self.reads_left:
                self.reads_left -= 1
            self._note(True, request, result, called_at)

        self.reading += 1
        server.call(server.replica.read, done)

    # ---- what it hears ---------------------------------------------------------------------------------------

    def opened(self, session: int, next_seq: int) -> None:
        """The session is attached; commands below ``next_seq`` have been executed."""
        if self.session and session != self.session:
            raise Broken("11", f"client {self.number} gets session {session:x} for its {self.session:x}")
        self.session = session
        self._is_open = True
        self._heard_at = self._stage.now
        self._submitted_through = self._received_below() - 1

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        """Results, from ``first_seq`` on; some may have come before."""
        self._heard_at = self._stage.now
        for seq, result in enumerate(results, first_seq):
            # What was executed before this attachment is answered when it is submitted again: later than what follows.
            asked = self.in_flight.pop(seq, None)
            if asked is not None:
                told = self._executions.answered(self.session, seq, asked.command, result)
                self.answered += 1
                self._note(False, asked.command, told, asked.called_at, seq)

    def _received_below(self) -> int:
        return next(iter(self.in_flight), self.next_seq)

    def failed(self, error: PaxosRsmError) -> None:
        """The attachment has ended."""
        self._sink.current = False
        self._handle = None
        self._is_open = False
        self.reading = 0
        if isinstance(error, SessionExpired):
            self._stage.fire("session expired")
            self._executions.expired(self.session)
            for asked in self.in_flight.values():
                self._note(False, asked.command, None, asked.called_at, asked.seq, known=False)
            if self.commands_left is not None:
                self.commands_left += len(self.in_flight)  # it makes others in their place
            self.in_flight.clear()
            self.session, self.next_seq = 0, 1

    def give_up(self) -> None:
        """The run is over: what becomes of its commands in flight is not known."""
        for asked in self.in_flight.values():
            self._note(False, asked.command, None, asked.called_at, asked.seq, known=False)
        self.in_flight.clear()

    def _note(
        self, is_read: bool, request: bytes, result: Any, called_at: int, seq: int = 0, *, known: bool = True
    ) -> None:
        if self._history is not None:
            returned_at = self._stage.now if known else None
            self._history.append(
                Asked(self.number, is_read, request, result, called_at, returned_at, self.session, seq)
            )
