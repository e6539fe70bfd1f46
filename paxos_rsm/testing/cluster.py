"""A cluster of real server processes on this machine: what tests, ``cluster`` and ``demo`` run on.

::

    with LocalCluster(size=3) as cluster:              # free ports, a temporary directory
        leader = cluster.wait_for_leader()             # "n2"
        cluster[leader].kill()                         # SIGKILL; also stop() and cont(), terminate(), wipe()
        cluster.wait_for_leader()
        cluster[leader].start()

What goes wrong in the world around the servers is an option each::

    LocalCluster(5, proxied=True)                  # cluster.links: cut, delay, partition (links.py)
    LocalCluster(shim=True)                        # cluster["n1"].faults: sync errors, a wrong clock (shim.py)
    LocalCluster(disk_bytes=96 << 20)              # cluster["n1"].fill_disk(): a small disk each (disks.py)

Everything here blocks; from a coroutine, call it by ``asyncio.to_thread``. It needs no test framework.

No process outlives its cluster: leaving the ``with`` block ends them, the end of this interpreter does too,
and where this process is killed without a word each server sees its standard input end, and stops by
itself. Servers are started in sessions of their own, so that Ctrl-C in a terminal reaches only whoever runs
the cluster. A signal is only ever sent to a process that was started here and has not been waited for: its
number cannot have been reused.
"""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import grpc

from paxos_rsm._proto import admin_pb2, admin_pb2_grpc
from paxos_rsm.testing.disks import SmallDisk
from paxos_rsm.testing.errors import LocalClusterError
from paxos_rsm.testing.links import CLIENTS, Links
from paxos_rsm.testing.ports import PortHolder, port_is_free
from paxos_rsm.testing.shim import ServerFaults, preload_library

__all__ = ["LocalCluster", "LocalClusterError", "LocalServer"]

HOST = "127.0.0.1"
POLL_INTERVAL_S = 0.05
STATUS_TIMEOUT_S = 1.0
LOG_TAIL_LINES = 15

T = TypeVar("T")

CHANNEL_OPTIONS = (
    # A server that was started again is to be found at once, not after gRPC's growing pauses.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class LocalServer:
    """One server: its ports, its directory, its log, and its process, which may come and go."""

    def __init__(
        self,
        name: str,
        client_port: int,
        peer_port: int,
        directory: Path,
        *,
        command: Sequence[str],
        flags: Sequence[str],
        environment: Mapping[str, str],
        proxy_port: int | None = None,
        disk_bytes: int | None = None,
        shim: bool = False,
    ) -> None:
        self.name = name
        self.client_port = client_port
        self.peer_port = peer_port
        self._proxy_port = proxy_port
        self._disk = None if disk_bytes is None else SmallDisk(directory / f"{name}.disk", disk_bytes)
        self._faults = ServerFaults(directory / f"{name}.faults") if shim else None
        self.data_dir = (directory if self._disk is None else self._disk.path) / name
        self.log_path = directory / f"{name}.log"
        self.flags = [
            *("--name", name),
            *("--data-dir", str(self.data_dir)),
            *("--listen-client-urls", f"http://{HOST}:{client_port}"),
            *("--listen-peer-urls", f"http://{HOST}:{peer_port}"),
            *flags,
        ]
        if proxy_port is not None:
            self.flags += ["--advertise-client-urls", f"http://{self.endpoint}"]
        self.environment = dict(environment)
        """Of the next start."""
        if self._faults is not None:
            self.environment |= self._faults.environment(preload_library(), self.data_dir)
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self._asked_to_end = False

    @property
    def endpoint(self) -> str:
        """Where clients reach it, ``host:port``; by way of the proxy where clients' links are proxied, too."""
        return f"{HOST}:{self._proxy_port or self.client_port}"

    @property
    def direct_endpoint(self) -> str:
        """Its own port, whatever stands between: what this bench itself asks."""
        return f"{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Under which the other members know it."""
        return f"http://{HOST}:{self.peer_port}"

    @property
    def faults(self) -> ServerFaults:
        """Of its disk and clock. Raises LocalClusterError unless the cluster was made with ``shim=True``."""
        if self._faults is None:
            raise LocalClusterError(f"{self.name} runs without the shim: make the cluster with shim=True")
        return self._faults

    @property
    def pid(self) -> int | None:
        """Of the process, also after its end; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, be it stopped by SIGSTOP."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Of the last process: minus the signal that ended it; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts the process, on the data that is there. Does not wait for it to serve: see LocalCluster."""
        if self.running:
            raise LocalClusterError(f"{self.name} is running already, as process {self.pid}")
        for port in (self.client_port, self.peer_port):
            if not port_is_free(port, HOST):
                raise LocalClusterError(f"port {port} of {HOST} is in use: {self.name} cannot have it")
        self._asked_to_end = False
        if self._disk is not None:
            self._disk.mount()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *self.flags],
                stdin=subprocess.PIPE,  # its end is how the server learns that we are gone
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, and waits for the end. Nothing to do where it is not running."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """SIGSTOP: the process keeps its connections and does nothing, until :meth:`cont`."""
        self.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT, after :meth:`stop`."""
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        """Any signal. Raises LocalClusterError where the process does not run."""
        if self._process is None or not self.running:
            raise LocalClusterError(f"{self.name} is not running: it cannot be sent {number.name}")
        self._process.send_signal(number)

    def terminate(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, waits for the end in order, and gives the exit code.

        Raises LocalClusterError where it takes longer; the process is then killed.
        """
        if self._process is None:
            raise LocalClusterError(f"{self.name} was never started")
        self.request_end()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LocalClusterError(
                f"{self.name} did not end within {timeout_s:g} s of SIGTERM, and was killed{self._log_tail()}"
            ) from None
        self._reap()
        return self._process.returncode

    def request_end(self) -> None:
        """SIGTERM, without waiting: several servers can be asked before the first is waited for.

        Sent once: a second one may mean "at once" to a server that is ending in order.
        """
        if self._process is not None and self.running and not self._asked_to_end:
            self._asked_to_end = True
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a stopped process sees no SIGTERM

    def restart(self, *, kill: bool = False) -> None:
        """Ends the process where it runs, in order or (``kill``) by SIGKILL, and starts it. Does not wait for it."""
        if kill:
            self.kill()
        elif self.running:
            self.terminate()
        self.start()

    def fill_disk(self) -> None:
        """Leaves no byte free. Raises LocalClusterError unless the cluster was made with ``disk_bytes``."""
        self._small_disk().fill()

    def free_disk(self) -> None:
        """Takes back what :meth:`fill_disk` did. Raises LocalClusterError as it does."""
        self._small_disk().free()

    def _small_disk(self) -> SmallDisk:
        if self._disk is None:
            raise LocalClusterError(f"{self.name} has no disk of its own: make the cluster with disk_bytes")
        return self._disk

    def wipe(self) -> None:
        """Deletes the data directory. Raises LocalClusterError while the process runs."""
        if self.running:
            raise LocalClusterError(f"{self.name} is running: end it before its data is wiped")
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def wait(self, timeout_s: float = 15.0) -> int:
        """Waits for a process that ends by itself, and gives its exit code. Raises LocalClusterError."""
        if self._process is None:
            raise LocalClusterError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LocalClusterError(f"{self.name} still runs after {timeout_s:g} s") from None

    def log(self) -> str:
        """Everything that its processes have written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def command_line(self) -> list[str]:
        """The arguments after ``paxos-rsm server`` with which one could start it by hand."""
        return list(self.flags)

    def status(
        self, *, digest: bool = False, timeout_s: float = STATUS_TIMEOUT_S
    ) -> admin_pb2.StatusResponse:
        """What the server says of itself. Raises LocalClusterError where it does not answer."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.direct_endpoint, options=CHANNEL_OPTIONS)
        stub = admin_pb2_grpc.AdminStub(self._channel)
        try:
            return stub.Status(admin_pb2.StatusRequest(digest=digest), timeout=timeout_s)
        except grpc.RpcError as error:
            # What a call raises is a grpc.Call as well, which the types do not say.
            details = error.details() if hasattr(error, "details") else error
            raise LocalClusterError(
                f"{self.name} at {self.direct_endpoint} does not answer: {details}"
            ) from None

    def raise_if_ended(self) -> None:
        """Raises LocalClusterError, with the end of the log, where the process was started and has ended."""
        if self._process is not None and not self.running:
            raise LocalClusterError(f"{self.name} {self.describe_end()}{self._log_tail()}")

    def describe_end(self) -> str:
        """``was killed by SIGKILL``, ``ended with exit code 1``."""
        code = self.returncode
        if code is None:
            return "has not ended"
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"ended with exit code {code}"

    def close(self) -> None:
        """Kills the process where it still runs, and lets go of everything else."""
        self.kill()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._disk is not None:
            self._disk.unmount()
        if self._faults is not None:
            self._faults.close()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _log_tail(self) -> str:
        lines = self.log().splitlines()[-LOG_TAIL_LINES:]
        return "".join(f"\n  {self.name}| {line}" for line in lines)


def server_command() -> list[str]:
    """How to start a server with this very interpreter and package, whatever the path says."""
    return [sys.executable, "-m", "paxos_rsm.cli", "server", "--until-stdin-closes"]


class LocalCluster:
    """Servers ``n1``, ``n2``, ... on this machine: clients on even places of the ports, peers on the odd
    ones.

    ``base_port`` puts clients on base_port, base_port + 2, ... and peers one above; 0 takes free ports.
    Without ``directory`` the data lies in a temporary one that :meth:`close` removes. ``options`` are
    further flags of the server, without dashes in front; ``environment`` is added to this process's, from
    which PAXOS_RSM_* is left out.

    ``proxied`` puts every link between servers under :attr:`links`, ``proxied_clients`` those of the clients too.
    ``shim`` preloads the library behind :attr:`LocalServer.faults`; ``disk_bytes`` gives each server (or those
    that are named) a disk of that size. Where the machine cannot show these, FaultUnavailable says why.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        directory: Path | None = None,
        base_port: int = 0,
        machine: str | None = None,
        options: Mapping[str, str | int] | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        proxied: bool = False,
        proxied_clients: bool = False,
        shim: bool = False,
        disk_bytes: int | Mapping[str, int] | None = None,
    ) -> None:
        if size < 1:
            raise LocalClusterError(f"a cluster of {size} servers cannot be: it needs one at least")
        self._ports = PortHolder()
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="paxos-rsm-")) if directory is None else Path(directory)
        ports = list(range(base_port, base_port + 2 * size)) if base_port else self._ports.take(2 * size)
        names = [f"n{number}" for number in range(1, size + 1)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PAXOS_RSM_")}
        self._environment = {**inherited, **(environment or {})}
        self._command = command or server_command()
        self._flags = ["--machine", machine] if machine is not None else []
        self._flags += [
            part for option, value in (options or {}).items() for part in (f"--{option}", str(value))
        ]
        self._disk_bytes = disk_bytes
        self._shim = shim
        self._proxied_clients = proxied_clients
        self._base_port, self._made = base_port, size
        self._servers: dict[str, LocalServer] = {}
        self._links: Links | None = None
        try:
            if proxied or proxied_clients:
                self._links = Links(
                    dict(zip(names, ports[1::2], strict=True)),
                    self._ports,
                    client_ports=dict(zip(names, ports[::2], strict=True)) if proxied_clients else None,
                )
            peers = dict(zip(names, ports[1::2], strict=True))
            for name, client_port in zip(names, ports[::2], strict=True):
                self._servers[name] = self._make(name, client_port, peers)
        except BaseException:
            self.close()
            raise

    def _make(self, name: str, client_port: int, peers: Mapping[str, int], *flags: str) -> LocalServer:
        """``peers`` are the ports of all members, this one's among them."""
        initial = ",".join(f"{each}=http://{HOST}:{port}" for each, port in peers.items())
        bytes_max = self._disk_bytes
        return LocalServer(
            name,
            client_port,
            peers[name],
            self.directory,
            command=self._command,
            flags=["--initial-cluster", initial, *flags, *self._flags, *self._dialing(name)],
            environment=self._environment,
            proxy_port=self._links.port(CLIENTS, name) if self._links and self._proxied_clients else None,
            disk_bytes=bytes_max.get(name) if isinstance(bytes_max, Mapping) else bytes_max,
            shim=self._shim,
        )

    def _dialing(self, name: str) -> list[str]:
        """How one server is told to go through the proxy."""
        if self._links is None:
            return []
        others = [other for other in self._links.names if other != name]
        dialed = [f"{other}=http://{HOST}:{self._links.port(name, other)}" for other in others]
        return ["--peer-dial-urls", ",".join(dialed)] if dialed else []

    # ---- who is there ------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> LocalServer:
        return self._servers[name]

    def __iter__(self) -> Iterator[LocalServer]:
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

    @property
    def links(self) -> Links:
        """The links between the servers. Raises LocalClusterError unless the cluster was made ``proxied``."""
        if self._links is None:
            raise LocalClusterError(
                "the servers of this cluster reach each other directly: make it with proxied=True"
            )
        return self._links

    @property
    def running(self) -> list[LocalServer]:
        """The servers whose process is there."""
        return [server for server in self if server.running]

    def logs(self) -> dict[str, str]:
        """What each server has written so far, by name."""
        return {server.name: server.log() for server in self}

    # ---- coming and going --------------------------------------------------------------------------------

    def add(self, name: str | None = None) -> LocalServer:
        """A further server, not started yet, on ports of its own: one that joins the cluster which runs.

        Add its :attr:`LocalServer.peer_url` to the members first, then start it. Without ``name`` it is the next
        number. Raises LocalClusterError where the name is taken, and where the links are proxied: each has a port
        that was drawn when the cluster was made.
        """
        if self._links is not None:
            raise LocalClusterError("a cluster whose links are proxied takes no further servers")
        self._made += 1
        name = name or f"n{self._made}"
        if name in self._servers:
            raise LocalClusterError(f"there is a server {name} already")
        first = self._base_port + 2 * (self._made - 1)
        client_port, peer_port = (first, first + 1) if self._base_port else self._ports.take(2)
        peers = {server.name: server.peer_port for server in self} | {name: peer_port}
        self._servers[name] = self._make(name, client_port, peers, "--initial-cluster-state", "existing")
        return self._servers[name]

    def remove(self, name: str) -> None:
        """Forgets a server, of which no process is left after that. Whether it is a member is not touched."""
        self._servers.pop(name).close()

    def start(self, *, wait: bool = True, timeout_s: float = 30.0) -> None:
        """Starts every server that does not run; with ``wait``, until all of them follow one leader.

        Raises LocalClusterError where that takes longer, or where one ends meanwhile.
        """
        atexit.register(self.close)
        for server in self:
            if not server.running:
                server.start()
        if wait:
            self.wait_until(self._leader_of_all, "leader that all follow", timeout_s)

    def restart(self, *, wait: bool = True, timeout_s: float = 30.0) -> None:
        """Ends every server in order, and starts all of them again."""
        self.terminate()
        self.start(wait=wait, timeout_s=timeout_s)

    def terminate(self, timeout_s: float = 15.0) -> dict[str, int]:
        """SIGTERM to every server that runs, at once; waits for all, and gives their exit codes by name.

        Raises LocalClusterError where one takes longer; it is then killed.
        """
        running = self.running
        for server in running:
            server.request_end()
        return {server.name: server.terminate(timeout_s) for server in running}

    def kill(self) -> None:
        """SIGKILL to every server."""
        for server in self:
            server.kill()

    def keep_directory(self) -> None:
        """Has :meth:`close` leave the directory, temporary or not: for logs that somebody will want to read."""
        self._temporary = False

    def close(self) -> None:
        """Kills what still runs, removes the directory where it was temporary, gives back the ports."""
        atexit.unregister(self.close)
        for server in self:
            server.close()
        if self._links is not None:
            self._links.close()
        self._ports.close()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- what they say -----------------------------------------------------------------------------------

    def statuses(self, *, digest: bool = False) -> dict[str, admin_pb2.StatusResponse]:
        """What every server that answers says of itself, by name."""
        answers: dict[str, admin_pb2.StatusResponse] = {}
        for server in self.running:
            with contextlib.suppress(LocalClusterError):
                answers[server.name] = server.status(digest=digest)
        return answers

    def leader(self, *, everyone: bool = False) -> str | None:
        """The server that says it leads, where a majority of the members (or everyone running) agrees."""
        answers = self.statuses()
        for name, answer in answers.items():
            if answer.role == "leader":
                ballot = (answer.ballot.round, answer.ballot.node)
                following = [
                    other
                    for other in answers.values()
                    if other.leader == name and (other.ballot.round, other.ballot.node) == ballot
                ]
                voters = sum(not member.learner for member in answer.members) or len(self)
                if len(following) >= max(len(self.running) if everyone else 0, voters // 2 + 1):
                    return name
        return None

    def wait_for_leader(self, timeout_s: float = 30.0, *, everyone: bool = False) -> str:
        """Waits for a leader (see :meth:`leader`) and gives its name. Raises LocalClusterError."""
        return self.wait_until(lambda: self.leader(everyone=everyone), "leader", timeout_s)

    def wait_until(self, condition: Callable[[], T | None], what: str, timeout_s: float = 30.0) -> T:
        """Asks ``condition`` until it gives something true, and gives that.

        Raises LocalClusterError after ``timeout_s``: it says ``what`` was waited for, and how the servers
        are.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() >= deadline:
                raise LocalClusterError(f"no {what} within {timeout_s:g} s: {self._describe()}")
            time.sleep(POLL_INTERVAL_S)

    def _leader_of_all(self) -> str | None:
        for server in self:
            server.raise_if_ended()
        return self.leader(everyone=True)

    def _describe(self) -> str:
        """One phrase for each server, for the message of a time-out."""
        answers = self.statuses()
        phrases = []
        for server in self:
            answer = answers.get(server.name)
            if answer is not None:
                ballot = f"ballot {answer.ballot.round}" if answer.ballot.round else "no ballot"
                phrases.append(f"{server.name} is {answer.role}, {ballot}, applied {answer.applied_slot}")
            elif server.running:
                phrases.append(f"{server.name} runs and does not answer")
            elif server.pid is None:
                phrases.append(f"{server.name} was not started")
            else:
                phrases.append(f"{server.name} {server.describe_end()}")
        return "; ".join(phrases)
