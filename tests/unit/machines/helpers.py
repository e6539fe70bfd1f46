"""A state machine that can be read like a diary, and a log that feeds it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from paxos_rsm.codec.frames import FrameCodec, commands_frame, expire_frame, register_frame
from paxos_rsm.machines.base import Position, StateMachine, Timeout, Timer
from paxos_rsm.machines.frames import FrameOutcome, Registered
from paxos_rsm.machines.sessions import SESSION_RESULTS_MAX, SessionMachine

__all__ = ["BatchDiary", "Diary", "Log", "TimedDiary"]


class Diary:
    """Writes down every command it executes, and answers with the page. Raises for b'boom'."""

    def __init__(self) -> None:
        self.pages: list[tuple[str, int, int]] = []

    def apply(self, command: bytes, at: Position) -> bytes:
        if command == b"boom":
            raise ZeroDivisionError("the user's own mistake")
        self.pages.append((command.decode(), at.slot, at.index))
        return b"page %d" % len(self.pages)

    def query(self, request: bytes) -> bytes:
        return b"%d pages" % len(self.pages)

    def snapshot(self) -> Iterable[bytes]:
        pages = list(self.pages)
        return (json.dumps(page).encode() for page in pages)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.pages = [tuple(json.loads(chunk)) for chunk in chunks]

    def digest(self) -> bytes:
        return json.dumps(self.pages).encode()

    @property
    def commands(self) -> list[str]:
        return [page[0] for page in self.pages]


class TimedDiary(Diary):
    """Arms timer 1 with each command, for as many milliseconds as there are pages; a time-out that holds is a page."""

    def __init__(self) -> None:
        super().__init__()
        self.armed: list[Timer] = []

    def apply(self, command: bytes, at: Position) -> bytes:
        page = super().apply(command, at)
        self.armed.append(Timer(1, len(self.pages), len(self.pages)))
        return page

    def take_timers(self) -> list[Timer]:
        armed, self.armed = self.armed, []
        return armed

    def is_armed(self, timer: int) -> bool:
        return timer == 1 and bool(self.pages)

    def time_out(self, timeouts: Sequence[Timeout], at: Position) -> None:
        for timer, armed in timeouts:
            if timer == 13:
                raise ZeroDivisionError("the user's own mistake")
            if armed == len(self.pages):
                self.pages.append((f"timer {timer} ran out", at.slot, at.index))


class BatchDiary(Diary):
    """The same, a frame at a time, with results that are not bytes: the numbers of the pages."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[bytes]] = []
        self.encoded = 0

    def apply_batch(self, commands: Sequence[bytes], at: Position) -> list[Any]:
        self.batches.append(list(commands))
        results = []
        for index, command in enumerate(commands, at.index):
            self.apply(command, Position(at.slot, index))
            results.append(len(self.pages))
        return results

    def encode_result(self, result: Any) -> bytes:
        self.encoded += 1
        return b"page %d" % result


class Log:
    """Feeds a session machine, one slot a call."""

    def __init__(self, machine: StateMachine, session_results_max: int = SESSION_RESULTS_MAX) -> None:
        self.sessions = SessionMachine(machine, FrameCodec(), session_results_max=session_results_max)

    def slot(self, *frames: bytes) -> list[FrameOutcome]:
        return self.sessions.apply_slot(self.sessions.applied_slot + 1, frames)

    def register(self, nonce: int = 7, timeout_ms: int = 10_000) -> int:
        (outcome,) = self.slot(register_frame(nonce, timeout_ms))
        if not isinstance(outcome, Registered):
            raise TypeError(outcome)
        return outcome.session

    def submit(self, session: int, first_seq: int, *commands: bytes, received_below: int = 1) -> FrameOutcome:
        (outcome,) = self.slot(commands_frame(session, first_seq, received_below, commands))
        return outcome

    def expire(self, session: int, last_seq: int) -> FrameOutcome:
        (outcome,) = self.slot(expire_frame(session, last_seq))
        return outcome

    def encoded(self, outcome: FrameOutcome) -> Iterator[tuple[int, bytes]]:
        """(seq, result) of every result that an Executed holds."""
        first_seq, results = outcome.first_seq, outcome.results  # type: ignore[union-attr]
        return enumerate(self.sessions.encode_results(results), first_seq)
