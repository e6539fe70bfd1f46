"""etcd's own command line, run as a user runs it."""

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["Etcdctl", "Running", "Said"]

TIMEOUT_S = 60.0


class Said(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it wrote to stdout."""
        return self.out.splitlines()


class Etcdctl:
    """``etcdctl --endpoints ...`` with whatever comes after it."""

    def __init__(self, path: str, endpoints: Sequence[str]) -> None:
        self._path = path
        self.endpoints = list(endpoints)
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL")
        }
        self._environment["ETCDCTL_API"] = "3"

    def at(self, *endpoints: str) -> "Etcdctl":
        """The same, pointed elsewhere."""
        return Etcdctl(self._path, endpoints)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [self._path, "--endpoints", ",".join(self.endpoints), *arguments]

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> Said:
        """Runs it to its end, whatever that is."""
        ended = subprocess.run(
            self._command(arguments),
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout_s,
            env=self._environment,
            check=False,
        )
        return Said(ended.returncode, ended.stdout, ended.stderr)

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> list[str]:
        """What it writes; it must end well."""
        said = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert said.code == 0, f"etcdctl {' '.join(arguments)} ended with {said.code}: {said.out}{said.err}"
        return said.lines

    def json(self, *arguments: str) -> Any:
        """What it writes with ``-w json``."""
        return json.loads("\n".join(self(*arguments, "-w", "json")))

    def start(self, *arguments: str) -> "Running":
        """Starts it, for what does not end by itself."""
        return Running(self._command(arguments), self._environment)


class Running:
    """An etcdctl that goes on, with what it has written so far. Ends with the ``with`` block."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=environment,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, put: Any) -> None:
        for line in stream:
            put(line.rstrip("\n"))

    def line(self, timeout_s: float = TIMEOUT_S) -> str:
        """The next line that it writes. Fails where none comes."""
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(
                f"etcdctl said nothing for {timeout_s:g} s; on stderr: {self.errors}"
            ) from None

    def lines(self, count: int, timeout_s: float = TIMEOUT_S) -> list[str]:
        """The next ``count`` lines."""
        deadline = time.monotonic() + timeout_s
        return [self.line(max(0.0, deadline - time.monotonic())) for _ in range(count)]

    def says_nothing(self, for_s: float) -> bool:
        """Whether it writes nothing for so long."""
        try:
            self._lines.put(self._lines.get(timeout=for_s))
        except queue.Empty:
            return True
        return False

    def write(self, line: str) -> None:
        """A line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> int:
        """Ctrl-C, and how it ends."""
        self.process.send_signal(2)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Kills it where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
