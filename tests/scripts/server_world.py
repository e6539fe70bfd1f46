"""The world of a script that opens with ``servers N``: replicas with sessions, and a machine that is not idempotent.

The machine keeps every command in order and answers how many there are: a command that was executed twice shows. Of
the messages only those that carry clients' words are shown; what each server applies is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.frames import commands_frame
from paxos_rsm.codec.messages import decode_message
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.frames import Executed, Expired, FrameOutcome, Gap, Registered
from paxos_rsm.paxos.messages import Accept, Forward, Message, ReadReply, ReadRequest
from paxos_rsm.replica.api import SessionHandle
from tests.scripts.node_world import options
from tests.scripts.patterns import KINDS, LINK
from tests.scripts.script import ScriptError
from tests.scripts.watched import NEVER
from tests.scripts.words import message_words, session_words
from tests.unit.replica.harness import Servers

SHOWN = (Accept, Forward, ReadReply, ReadRequest)


class WatchedServers(Servers):
    """The harness of the replica's unit tests, with a transcript. Nobody stands but who is told to."""

    def __init__(self, count: int, **settings: int) -> None:
        self.lines: list[str] = []
        self.stands = 0
        super().__init__(count, **settings)
        for number, server in self.servers.items():
            self._watch(number, server.replica.machine, server.journal)

    def _watch(self, number: int, machine: Any, journal: Any) -> None:
        apply_slot, apply = machine.apply_slot, journal.apply

        def applying(slot: int, frames: Any) -> list[FrameOutcome]:
            outcomes: list[FrameOutcome] = apply_slot(slot, frames)
            for outcome in outcomes:
                self.lines.append(f"  {number} applies slot {slot}: {outcome_words(outcome)}")
            return outcomes

        def executing(command: bytes, at: Position) -> bytes:
            if command == b"poison":
                raise ValueError("this machine cannot digest poison")
            result: bytes = apply(command, at)
            return result

        machine.apply_slot = applying
        journal.apply = executing

    def stop_with(self, number: int, error: PaxosRsmError) -> None:
        """A server meets what it must not go on after."""
        self.lines.append(f"  {number} stops: {error}")
        self.stop(number)

    def turn(self, number: int) -> None:
        """As in the harness; a server whose machine fails stops."""
        try:
            super().turn(number)
        except PaxosRsmError as error:
            self.stop_with(number, error)

    def deliver_all(self) -> None:
        """As in the harness, with a line for every message that carries a client's word."""
        for _ in range(100_000):
            if not self.wire:
                return
            sender, to, message = self.wire.pop(0)
            lost = (sender, to) in self.cut or type(message) in self.lossy
            if isinstance(message, SHOWN) and self.servers[to].up:
                self.lines.append(f"{sender} -> {to} {message_words(message)}" + (" is lost" if lost else ""))
            if not lost and self.servers[to].up:
                self.servers[to].replica.receive(sender, [message])
                self.turn(to)
        raise ScriptError("the wire does not fall silent")

    def run(self, ticks: int = 1) -> None:
        """As in the harness; nobody stands but who is told to."""
        for _ in range(ticks):
            for number, server in self.servers.items():
                server.replica.node.election.stand_at = 0 if number == self.stands else NEVER
            super().run(1)


def outcome_words(outcome: FrameOutcome) -> str:
    """What became of a frame at one server."""
    if isinstance(outcome, Registered):
        return f"registers {session_words(outcome.session)}"
    if isinstance(outcome, Executed):
        results = ", ".join(
            f"{seq} gives {result.decode()}" for seq, result in enumerate(outcome.results, outcome.first_seq)
        )
        return (
            f"{session_words(outcome.session)} {results or 'has nothing to do'}; next is {outcome.next_seq}"
        )
    if isinstance(outcome, Gap):
        return f"{session_words(outcome.session)} has a gap: {outcome.first_seq} came, next is {outcome.next_seq}"
    if isinstance(outcome, Expired):
        return f"{session_words(outcome.session)} has expired or never was"
    return type(outcome).__name__.lower()


class Caller:
    """A client at its end of a session: writes down what it is told."""

    def __init__(self, name: str, lines: Callable[[], list[str]]) -> None:
        self.name = name
        self.at = 0
        self.session = 0
        self.received_below = 0
        self.deaf = False
        self.handle: SessionHandle | None = None
        self._lines = lines

    def say(self, line: str) -> None:
        """One line of the transcript, from the client's side."""
        self._lines().append(f"  {self.name} {'never hears' if self.deaf else 'hears'} {line}")

    def opened(self, session: int, next_seq: int) -> None:
        """The server has attached the session."""
        self.session = session
        self.say(f"{session_words(session)} is open, next is {next_seq}")

    def results(self, first_seq: int, results: Sequence[Any]) -> None:
        """The server answers commands."""
        for seq, result in enumerate(results, first_seq):
            if result is None:
                continue  # this client has said that it has it: nothing is told to it
            self.say(f"{seq} gives {result.decode()}")

    def failed(self, first_seq: int, error: PaxosRsmError) -> None:
        """The server gives the session up."""
        self.say(f"{type(error).__name__}: {error}")


class ServerWorld:
    """See the module's docstring."""

    def __init__(self, text: str) -> None:
        words, given = options(text)
        self.servers = WatchedServers(int(words[0]), **given)
        self.callers: dict[str, Caller] = {}

    def do(self, line: str) -> list[str]:
        """One command; what it showed."""
        name, _, rest = line.partition(" ")
        command: Callable[[list[str]], None] | None = getattr(self, f"do_{name.replace('-', '_')}", None)
        if command is None:
            raise ScriptError(f"there is no command {name!r}")
        self.servers.lines = []
        command(rest.split())
        return self.servers.lines

    def left(self) -> list[str]:
        """Everything is delivered at once here."""
        return []

    # ---- commands ----------------------------------------------------------------------------------------------

    def do_led_by(self, words: list[str]) -> None:
        """Time passes until this server leads, and all that are up follow it."""
        servers = self.servers
        servers.stands = number = int(words[0])
        for _ in range(60):
            servers.run()
            up = [s.replica for s in servers.servers.values() if s.up]
            led = [r.leader[0] for r in up if r.leader is not None]
            if servers[number].node.proposer.leading and led == [number] * len(up):
                servers.stands = 0
                return
        raise ScriptError(f"{number} does not come to lead")

    def do_tick(self, words: list[str]) -> None:
        """Time passes."""
        self.servers.run(int(words[0][1:]) if words else 1)

    def do_open(self, words: list[str]) -> None:
        """``open NAME at N [like OTHER]``: a new session, or that of another client."""
        name, at = words[0], int(words[2])
        caller = self.callers[name] = Caller(name, lambda: self.servers.lines)
        caller.at = at
        session = self.callers[words[4]].session if len(words) > 4 else 0
        caller.handle = self.servers[at].attach(caller, session)
        self._go(at)

    def do_submit(self, words: list[str]) -> None:
        """``submit NAME SEQ COMMANDS``: one frame."""
        caller, seq, commands = self.callers[words[0]], int(words[1]), [w.encode() for w in words[2:]]
        if caller.handle is None:
            raise ScriptError(f"{caller.name} has no session")
        frame = commands_frame(caller.session, seq, caller.received_below, commands)
        try:
            caller.handle.submit(frame, seq, len(commands))
        except PaxosRsmError as error:
            caller.failed(seq, error)
        self._go(caller.at)

    def do_deafen(self, words: list[str]) -> None:
        """What is said to this client from now on is lost."""
        self.callers[words[0]].deaf = True

    def do_received(self, words: list[str]) -> None:
        """``received NAME BELOW``: its next frames say that it has all results below."""
        self.callers[words[0]].received_below = int(words[1])

    def do_leave(self, words: list[str]) -> None:
        """The client's stream breaks; its session goes on."""
        handle = self.callers[words[0]].handle
        if handle is not None:
            handle.close()

    def do_read(self, words: list[str]) -> None:
        """A linearizable read at a server."""
        number, lines = int(words[0]), self.servers.lines

        def done(applied: int | None) -> None:
            told = self.servers[number].query(b"").decode() or "nothing"
            lines.append(f"  {number} reads: {told}" if applied is not None else f"  {number} cannot read")

        self.servers[number].read(done)
        self._go(number)

    def _go(self, number: int) -> None:
        self.servers.turn(number)
        self.servers.deliver_all()

    def do_lossy(self, words: list[str]) -> None:
        """Messages of these kinds are lost; without a kind, none are any more."""
        self.servers.lossy = {KINDS[word] for word in words}

    def do_cut(self, words: list[str]) -> None:
        """One-way links."""
        self.servers.cut |= {(int(a), int(b)) for a, b in LINK.findall(" ".join(words))}

    def do_heal(self, words: list[str]) -> None:
        """All links stand."""
        self.servers.cut = set()

    def do_kill(self, words: list[str]) -> None:
        """A server dies; the others see its streams break."""
        self.servers.stop(int(words[0]))

    def do_journal(self, words: list[str]) -> None:
        """What every server's machine has executed."""
        for number, server in self.servers.servers.items():
            if server.up:
                told = b" ".join(server.journal.commands).decode() or "nothing"
                self.servers.lines.append(f"{number} has executed: {told}")

    def do_sessions(self, words: list[str]) -> None:
        """Which sessions each server knows."""
        for number, server in self.servers.servers.items():
            if server.up:
                told = [
                    f"{session_words(s.session)} through {s.last_seq}"
                    for s in server.replica.machine.sessions()
                ]
                self.servers.lines.append(f"{number} knows {', '.join(told) or 'no session'}")

    def do_apply(self, words: list[str]) -> None:
        """``apply N slot S``: asks the machine of a server to apply a slot, whatever came before."""
        number, slot = int(words[0]), int(words[2])
        try:
            self.servers[number].machine.apply_slot(slot, [])
        except PaxosRsmError as error:
            self.servers.stop_with(number, error)

    def do_newer(self, words: list[str]) -> None:
        """``newer 1->2 slot 3``: an Accept from a later version of this software arrives, of an entry of kind 9."""
        link = LINK.fullmatch(words[0])
        if link is None:
            raise ScriptError(f"{words[0]!r} is no link such as 1->2")
        sender, to = int(link[1]), int(link[2])
        round_, node = self.servers[sender].node.proposer.ballot
        entry = pb.Entry(kind=pb.EntryKind.ValueType(9), data=b"?")
        accept = pb.Accept(ballot=pb.Ballot(round=round_, node=node), slot=int(words[2]), entry=entry)
        self.servers.lines.append(f"{sender} -> {to} Accept of an entry of kind 9, slot {words[2]}")
        try:
            message: Message = decode_message(pb.PeerMessage(accept=accept).SerializeToString())
        except PaxosRsmError as error:
            self.servers.stop_with(to, error)
            return
        self.servers[to].receive(sender, [message])
        self._go(to)
