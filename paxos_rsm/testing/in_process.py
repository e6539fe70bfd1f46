"""A cluster inside of a test: several servers in this process, in the event loop of whoever starts it.

::

    async with InProcessCluster(3, machine=Counter) as cluster:
        async with cluster.client() as client:
            await client.submit(b"5")
        assert cluster["n1"].machine.total == 5      # what a server holds can be looked at

They are whole servers, with ports, peers and data directories of their own; a breakpoint or a ``print`` in the state
machine just works, and coverage sees it. What they share is what a process has: the interpreter, its hash seed, its
globals. And they can be stopped, not killed: for SIGKILL, SIGSTOP and broken links there is ``LocalCluster``.

A server that stops by itself (a machine that raised) fails the ``async with``, unless the test has failed by then.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.client.members import ask_members
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.config import ServerConfig, Tuning
from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.server.app import Server
from paxos_rsm.server.machine_loading import load_machine
from paxos_rsm.testing.errors import LocalClusterError
from paxos_rsm.testing.ports import PortHolder

__all__ = ["InProcessCluster", "InProcessServer"]

HOST = "127.0.0.1"
POLL_INTERVAL_S = 0.02
STATUS_TIMEOUT_S = 2.0


class InProcessServer:
    """One of the servers, which may come and go; the data stays."""

    def __init__(self, config: ServerConfig, client_port: int, make: Callable[[], StateMachine]) -> None:
        self.config = config
        self.name = config.name
        self.endpoint = f"{HOST}:{client_port}"
        """Where clients reach it, ``host:port``."""
        self._make = make
        self._machine: StateMachine | None = None
        self._server: Server | None = None
        self._waiting: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not been stopped, nor stopped by itself."""
        return self._waiting is not None and not self._waiting.done()

    @property
    def machine(self) -> Any:
        """The state machine of this server as of its last start: to look at, never to change."""
        if self._machine is None:
            raise LocalClusterError(f"{self.name} has not been started: it has no state machine yet")
        return self._machine

    async def start(self) -> None:
        """Starts it, on the data that is there. Does not wait for a leader.

        Raises LocalClusterError where it runs already, and what :meth:`paxos_rsm.server.app.Server.start` does.
        """
        if self._server is not None:
            raise LocalClusterError(f"{self.name} has been started and not been stopped since")
        machine = self._make()
        server = Server(self.config, machine)
        await server.start()
        self._machine, self._server = machine, server
        self._waiting = asyncio.create_task(server.wait())

    async def stop(self) -> None:
        """Stops it in order: what is in flight gets its time. Nothing to do where it is not running.

        Raises what it had stopped for by itself.
        """
        server, waiting = self._server, self._waiting
        self._server = self._waiting = None
        if server is None or waiting is None:
            return
        ended = waiting.done()
        waiting.cancel()
        await server.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        if ended and not waiting.cancelled():
            waiting.result()

    async def restart(self) -> None:
        """Stops it and starts it again: its machine is a new one, made from what the log remembers."""
        await self.stop()
        await self.start()


class InProcessCluster:
    """Servers ``n1``, ``n2``, ...; see the module's docstring.

    ``machine`` is a class (or whatever makes a new machine), or its name, ``module:Class``; without one it is the
    key-value store. The data lies in ``directory``, or in a temporary one that :meth:`close` removes.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        machine: Callable[[], StateMachine] | str | None = None,
        directory: Path | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        if size < 1:
            raise LocalClusterError(f"a cluster of {size} servers cannot be: it needs one at least")
        make = _maker(machine)
        self._ports = PortHolder()
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="paxos-rsm-")) if directory is None else directory
        ports = self._ports.take(2 * size)
        names = [f"n{number}" for number in range(1, size + 1)]
        members = ",".join(
            f"{name}=http://{HOST}:{port}" for name, port in zip(names, ports[size:], strict=True)
        )
        self._servers: dict[str, InProcessServer] = {}
        for name, client_port, peer_port in zip(names, ports[:size], ports[size:], strict=True):
            config = ServerConfig(
                name=name,
                data_dir=str(self.directory / name),
                listen_client_urls=(f"http://{HOST}:{client_port}",),
                listen_peer_urls=(f"http://{HOST}:{peer_port}",),
                initial_cluster=members,
                tuning=tuning or Tuning(),
            )
            self._servers[name] = InProcessServer(config, client_port, make)

    def __getitem__(self, name: str) -> InProcessServer:
        return self._servers[name]

    def __iter__(self) -> Iterator[InProcessServer]:
        return iter(self._servers.values())

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def names(self) -> list[str]:
        """``n1, n2, ...``."""
        return list(self._servers)

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the servers, running or not, each ``host:port``."""
        return [server.endpoint for server in self]

    def client(self, **options: Any) -> AsyncClient:
        """A client of all servers; ``options`` are those of AsyncClient. Whoever asks for it closes it."""
        return AsyncClient(self.endpoints, **options)

    async def start(self, *, wait: bool = True, timeout_s: float = 30.0) -> None:
        """Starts every server that does not run; with ``wait``, until there is a leader that all follow."""
        async with asyncio.TaskGroup() as group:
            for server in self:
                if not server.running:
                    group.create_task(server.start())
        if wait:
            await self.wait_for_leader(timeout_s, everyone=True)

    async def wait_for_leader(self, timeout_s: float = 30.0, *, everyone: bool = False) -> str:
        """Waits for a leader that a majority (or ``everyone``) follows, and gives its name.

        Raises LocalClusterError after ``timeout_s``.
        """
        needed = len(self) if everyone else len(self) // 2 + 1
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            rows = await ask_members(self.endpoints, STATUS_TIMEOUT_S)
            for row in rows:
                following = [each for each in rows if each.leader == row.name and each.ballot == row.ballot]
                if row.role == "leader" and len(following) >= needed:
                    return row.name
            if loop.time() >= deadline:
                told = "; ".join(
                    f"{row.name or row.endpoint}: {row.error or f'{row.role}, follows {row.leader or 0}'}"
                    for row in rows
                )
                raise LocalClusterError(f"no leader within {timeout_s:g} s: {told}")
            await asyncio.sleep(POLL_INTERVAL_S)

    def let_go(self) -> None:
        """Gives the ports back: for a cluster that was never started, or is closed."""
        self._ports.close()

    async def close(self) -> None:
        """Stops every server, and removes the data where it was temporary. May be called twice.

        Raises LocalClusterError where a server had stopped by itself.
        """
        try:
            outcomes = await asyncio.gather(*(server.stop() for server in self), return_exceptions=True)
        finally:
            self._ports.close()
            if self._temporary:
                shutil.rmtree(self.directory, ignore_errors=True)
        for server, outcome in zip(self, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise LocalClusterError(f"{server.name} stopped by itself: {outcome}") from outcome

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            with contextlib.suppress(LocalClusterError):
                await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except LocalClusterError as stopped:
            if error is None:
                raise
            error.add_note(str(stopped))


def _maker(machine: Callable[[], StateMachine] | str | None) -> Callable[[], StateMachine]:
    if machine is None:
        return lambda: KeyValueMachine(KvCodec())
    if isinstance(machine, str):
        return lambda: load_machine(machine)
    if not callable(machine):
        raise ConfigError(f"{machine!r} is no machine: give a class, or its name as module:Class")
    return machine
