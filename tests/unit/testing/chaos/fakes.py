"""A cluster that only notes what is done to it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from paxos_rsm.testing.errors import LocalClusterError

__all__ = ["FakeCluster", "FakeServer", "until"]


async def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Waits until it gives something true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what it looks at is changed by code that knows no event
            await asyncio.sleep(0.01)


class FakeServer:
    """A server: running or not, with a process number that is new at each start."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self._done = name, done
        self.endpoint = self.direct_endpoint = f"{name}:2379"
        self.running, self.pid = True, 100 * int(name[1:])
        self.returncode: int | None = None
        self.ends_by_sigterm_with = 0
        self.faults = _Noting(f"{name}.faults", done)
        self.faults.syncs_failed = 0

    def _note(self, what: str) -> None:
        self._done.append(f"{what} {self.name}")

    def kill(self) -> None:
        self._note("kill")
        self.running, self.returncode = False, -9

    def start(self) -> None:
        if self.running:
            raise LocalClusterError(f"{self.name} is running already")
        self._note("start")
        self.running, self.returncode, self.pid = True, None, self.pid + 1

    def stop(self) -> None:
        self._note("stop")

    def cont(self) -> None:
        if not self.running:
            raise LocalClusterError(f"{self.name} is not running")
        self._note("cont")

    def request_end(self) -> None:
        self._note("ask to end")

    def terminate(self) -> int:
        self._note("terminate")
        self.running, self.returncode = False, self.ends_by_sigterm_with
        return self.ends_by_sigterm_with

    def fill_disk(self) -> None:
        self._note("fill")

    def free_disk(self) -> None:
        self._note("free")

    def describe_end(self) -> str:
        return f"ended with exit code {self.returncode}"

    def log(self) -> str:
        return "first line\nlast line"


class _Noting(SimpleNamespace):
    """Any method may be called, and is noted."""

    def __init__(self, name: str, done: list[str]) -> None:
        super().__init__(name=name, done=done)

    def __getattr__(self, what: str) -> Any:
        def call(*given: Any, **named: Any) -> None:
            told = [*map(str, given), *(f"{key}={value}" for key, value in named.items())]
            self.done.append(f"{self.name}.{what}({', '.join(told)})")

        return call


class FakeCluster:
    """Servers n1, n2, ...; ``done`` is everything that was done, in order."""

    def __init__(self, size: int = 5) -> None:
        self.done: list[str] = []
        self.servers = {f"n{number}": FakeServer(f"n{number}", self.done) for number in range(1, size + 1)}
        self.links = _Noting("links", self.done)

    names = property(lambda self: list(self.servers))

    def __getitem__(self, name: str) -> FakeServer:
        return self.servers[name]

    def __iter__(self) -> Any:
        return iter(self.servers.values())

    def __len__(self) -> int:
        return len(self.servers)
