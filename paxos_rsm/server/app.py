"""A whole server: wired from its configuration, and taken down in order.

::

    data directory -> log -> storage thread --+
                                              +-- replica (node, sessions, state machine) -- loop
    transport to the peers -------------------+                    |
                              Session, Admin, health, reflection, and what speaks etcd's language
                                                                   |
                                                        gRPC server for the clients

*Up*: addresses are tried, the directory is locked and read, the log is replayed, the peers are looked for, and
clients are let in; a server that cannot form its cluster yet answers Status and says NOT_SERVING.

*Down*: health says NOT_SERVING, nothing new is taken, what is in flight gets ``shutdown_grace_ms`` to be answered;
then the streams to clients end, then those to the peers, then the log is synced and closed, then the directory is
unlocked. Whoever is told "stop" while it starts stops there.

:class:`Server` may live in any program with an event loop. :func:`run_server` is the process around one: signals,
logging, the interpreter's own settings, and one sentence instead of a traceback.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from paxos_rsm._version import __version__
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.config import ServerConfig
from paxos_rsm.errors import ConfigError, PaxosRsmError
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.replica.loop import ReplicaLoop
from paxos_rsm.server import admin_service, session_service
from paxos_rsm.server.admin_service import AdminService, ServerIdentity
from paxos_rsm.server.assembly import make_replica
from paxos_rsm.server.etcd_services import EtcdServices
from paxos_rsm.server.gateway import make_gateway
from paxos_rsm.server.health import HealthService, enable_reflection
from paxos_rsm.server.joining import identified, publish_addresses
from paxos_rsm.server.listening import client_server, require_free
from paxos_rsm.server.logging import configure_logging
from paxos_rsm.server.machine_loading import check_machine, load_machine
from paxos_rsm.server.session_service import SessionLimits, SessionService
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.identity import Identity

if TYPE_CHECKING:
    from paxos_rsm.server.gateway_http import HttpGateway

__all__ = ["Server", "choose_machine", "run_server"]

log = logging.getLogger(__name__)

LINGER_S = 0.05
CALLS_END_S = 2.0
STOP_TIMEOUT_S = 10.0
"""For what may hang in the end: a disk that does not answer must not keep a failed process alive."""

LEADERLESS_ELECTIONS = 3
"""Requests wait for a leader so many election time-outs: through one that fails, not longer."""


class Server:
    """One member of a cluster, with the services on it. Belongs to the event loop that starts it.

    ::

        async with Server(ServerConfig(name="n1"), machine=Counter()) as server:
            await server.wait()

    ``machine`` is a fresh state machine, of the same class on every member; without one, and without one in the
    configuration, it is the key-value store. A Server is used once.
    """

    def __init__(self, config: ServerConfig | None = None, machine: StateMachine | None = None) -> None:
        self.config = config or ServerConfig()
        self._machine = machine
        self._directory: DataDirectory | None = None
        self._replica: ReplicaLoop | None = None
        self._sessions: SessionService | None = None
        self._etcd: EtcdServices | None = None
        self._health: HealthService | None = None
        self._grpc: grpc.aio.Server | None = None
        self._gateway: HttpGateway | None = None
        self._had_leader = False
        self._started = False
        self._served = False
        self._background: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # ---- up ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Comes up far enough to take clients; the cluster may still be forming, or without a leader.

        Raises ConfigError, StorageError, RefusedByCluster, MachineFailed: a sentence each, and nothing is left behind.
        """
        if self._started:
            raise ConfigError("a Server is used once; make a new one")
        self._started = True
        try:
            await self._bring_up()
        except BaseException:
            await self._take_down(0.0)
            raise

    async def _bring_up(self) -> None:
        self.config.validate()
        # From here on it has the ids that it goes by.
        config = self.config = await identified(self.config)
        require_free(config.listen_client_urls, "--listen-client-urls", "clients")
        require_free(config.listen_peer_urls, "--listen-peer-urls", "peers")
        require_free(config.listen_http_urls, "--listen-http-urls", "HTTP")
        machine = self._choose_machine()
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_directory))
        try:
            directory = self._directory = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread cannot be stopped, and what it opens has to be closed.
            self._directory = await opening
            raise
        self._replica = await make_replica(config, directory, machine)
        handlers = self._make_services(self._replica, machine, directory.identity)
        self._grpc = client_server(config.listen_client_urls, config.tuning, handlers)
        ours = [name for name in self._etcd.names if name.startswith("paxos_rsm.")] if self._etcd else []
        enable_reflection(self._grpc, [session_service.SERVICE, admin_service.SERVICE, *ours])
        if config.listen_http_urls and self._etcd is not None:
            self._gateway = make_gateway(
                config.listen_http_urls,
                self._etcd.handlers(),
                self._etcd.calls.read_index,
                request_bytes_max=config.tuning.request_bytes_max,
                origins=config.cors,
            )
        await self._replica.start()
        if self._etcd is not None:
            self._etcd.start()
        await self._grpc.start()
        if self._gateway is not None:
            await self._gateway.start()
        self._served = True
        publishing = publish_addresses(self._replica, config, self._replica.network.least_level)
        self._background.append(asyncio.create_task(publishing))
        if self._health is not None:
            self._background.append(asyncio.create_task(self._health.catch_up(self._replica.read)))
        log.info(
            "serving",
            extra={
                "member": config.name,
                "clients": ",".join(config.listen_client_urls),
                "peers": ",".join(config.listen_peer_urls),
                "data_dir": directory.path,
                "cluster_id": f"{config.cluster_id:x}",
                "member_id": f"{config.member_id:x}",
                "boot_count": directory.identity.boot_count,
                "version": __version__,
            },
        )

    def _choose_machine(self) -> StateMachine:
        if self._machine is not None:
            if self.config.machine is not None:
                raise ConfigError(
                    f"two state machines: {type(self._machine).__name__} was given, --machine says "
                    f"{self.config.machine}"
                )
            return check_machine(self._machine, "the machine that was given")
        return choose_machine(self.config)

    def _open_directory(self) -> DataDirectory:
        config = self.config
        return DataDirectory.open(
            config.directory,
            RealFiles(),
            cluster_id=config.cluster_id,
            member_id=config.member_id,
            name=config.name,
            draw_bits=secrets.randbits,
            segment_bytes=config.tuning.log_segment_bytes,
            joined=config.joins,
            repair=True,
            hold_us=config.tuning.read_hold_us,
        )

    def _make_services(
        self, replica: ReplicaLoop, machine: StateMachine, identity: Identity
    ) -> list[grpc.GenericRpcHandler]:
        config, tuning = self.config, self.config.tuning
        cluster_id, member_id = config.cluster_id, config.member_id
        leaderless_ms = LEADERLESS_ELECTIONS * tuning.election_timeout_ms
        self._sessions = SessionService(
            replica,
            cluster_id=cluster_id,
            member_id=member_id,
            limits=SessionLimits(tuning.frame_bytes_max, tuning.results_bytes_max, leaderless_ms),
        )
        known = ServerIdentity(
            cluster_id=cluster_id,
            name=config.name,
            member_id=member_id,
            incarnation=identity.incarnation,
            boot_count=identity.boot_count,
            initial_members=config.members,
            initial_member_ids=config.member_ids,
            client_urls=config.client_urls,
        )
        self._etcd = EtcdServices(
            replica,
            machine,
            known,
            tuning,
            leaderless_ms=leaderless_ms,
            least_level=replica.network.least_level,
        )
        admin = AdminService(
            replica,
            known,
            revision=lambda: machine.revision if isinstance(machine, KeyValueMachine) else 0,
            digest=machine.digest,
        )
        self._health = HealthService([session_service.SERVICE, admin_service.SERVICE, *self._etcd.names])
        replica.watch_leader(self._health.set_serving)
        replica.watch_install(self._health.set_installing)
        replica.watch_leader(self._say_leader)
        return [self._sessions.handler(), *self._etcd.handlers(), admin.handler(), self._health.handler()]

    def _say_leader(self, has_leader: bool) -> None:
        if self._replica is None or has_leader == self._had_leader:
            return
        self._had_leader = has_leader
        status = self._replica.status()
        members = status.configuration
        leader = members.by_incarnation(status.leader) if members is not None else None
        log.info(
            "there is a leader" if has_leader else "there is no leader",
            extra={
                "role": status.role,
                "leader": leader.name
                if leader is not None
                else f"{status.leader:x}"
                if has_leader
                else "none",
                "ballot": status.ballot,
            },
        )

    # ---- running -------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Returns once the server has been stopped; raises what it had to stop for.

        PaxosRsmError (StorageError, ProtocolError, RefusedByCluster, MachineFailed) with a sentence to be shown, or
        whatever a bug has raised. The server is still to be stopped then: leave the ``async with``, or call ``stop``.
        """
        if self._replica is None:
            raise ConfigError("the server has not been started")
        failed = self._replica.failed
        stopped = asyncio.create_task(self._stopped.wait())
        either: set[asyncio.Future[Any]] = {failed, stopped}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if failed.done() and not failed.cancelled():
            error = failed.exception()
            if error is not None:
                raise error

    # ---- down ----------------------------------------------------------------------------------------------

    async def stop(self, grace_s: float | None = None) -> None:
        """Takes the server down in order; requests in flight get ``grace_s`` (``shutdown_grace_ms`` by default).

        Stopping twice is allowed, also at once: both wait for the one end.
        """
        if self._stopping is None:
            grace = self.config.tuning.shutdown_grace_ms / 1000 if grace_s is None else grace_s
            self._stopping = asyncio.create_task(self._take_down(grace))
        await asyncio.shield(self._stopping)

    async def _take_down(self, grace_s: float) -> None:
        replica = self._replica
        if replica is not None and replica.failed.done():
            grace_s = 0.0  # nobody will answer what is in flight
        for task in self._background:
            task.cancel()
        if self._health is not None:
            self._health.stop()
        if replica is not None and grace_s and self._served:
            await self._hand_over(replica)
        if self._etcd is not None:
            self._etcd.stop()
        draining = [each.drain(grace_s) for each in (self._sessions, self._etcd) if each is not None]
        await asyncio.gather(*draining)
        if self._etcd is not None:
            self._etcd.close()
        if self._grpc is not None:
            if grace_s:
                # What has come over the wire and was not looked at yet would be cancelled by gRPC without a reason:
                # give it the time to be told one.
                await asyncio.sleep(LINGER_S)
            await self._grpc.stop(min(grace_s, CALLS_END_S))
        if self._gateway is not None:
            await self._gateway.stop()
        try:
            if replica is not None:
                await replica.stop()
        finally:
            if self._directory is not None:
                await asyncio.to_thread(self._directory.close)
            self._stopped.set()
            if self._served:
                log.info("stopped", extra={"member": self.config.name})

    async def _hand_over(self, replica: ReplicaLoop) -> None:
        """Where this server leads, another is to do so before it goes: then nobody has to miss a leader first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.tuning.election_timeout_ms / 1000):
                if heir := await replica.hand_over():
                    extra = {"leader": f"{heir:x}", "ballot": replica.ballot}
                    log.info("handed the leadership over", extra=extra)


def choose_machine(config: ServerConfig) -> StateMachine:
    """A fresh state machine, of the class that the configuration names. Raises ConfigError."""
    return load_machine(config.machine) if config.machine is not None else KeyValueMachine(KvCodec())


# ---- the process around a server ---------------------------------------------------------------------------


def run_server(config: ServerConfig) -> int:
    """Runs a server until a signal, or an error, ends it; returns the exit status of the process.

    SIGTERM and SIGINT end it in order, with status 0; a second one at once. What has to stop it is one line on
    stderr, ``Error: ...``, and status 1.
    """
    configure_logging(config.log_level, config.log_format)
    tune_process()
    try:
        asyncio.run(_serve(config))
    except PaxosRsmError as error:
        _say_error(error)
        return 1
    except Exception as error:
        log.error("stopped by a bug", exc_info=error)
        _say_error(error)
        return 1
    return 0


async def _serve(config: ServerConfig) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, loop, ending, number)
    server = Server(config)
    ended = asyncio.create_task(ending.wait())
    starting = asyncio.create_task(server.start())
    await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    await starting
    # What the start has made stays: the collector need not look at the log that was replayed, ever again.
    gc.collect()
    gc.freeze()
    failing = asyncio.create_task(server.wait())
    await asyncio.wait({failing, ended}, return_when=asyncio.FIRST_COMPLETED)
    failure = failing.exception() if failing.done() else None
    failing.cancel()
    try:
        async with asyncio.timeout(config.tuning.shutdown_grace_ms / 1000 + STOP_TIMEOUT_S):
            await server.stop()
    except TimeoutError:
        log.error("the server does not stop: leaving it behind")
        if failure is not None:
            _say_error(failure)
        sys.stderr.flush()
        # A thread that waits for a disk cannot be ended, and the interpreter would wait for it.
        os._exit(1)
    if failure is not None:
        raise failure


def _end(loop: asyncio.AbstractEventLoop, ending: asyncio.Event, number: signal.Signals) -> None:
    log.info("ending in order; a second signal ends at once", extra={"signal": number.name})
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(each)
    ending.set()


def _say_error(error: BaseException) -> None:
    """One line: what a supervisor shows, and a human reads."""
    text = " ".join(str(error).split())
    if not isinstance(error, PaxosRsmError):
        text = (
            f"a bug in paxos_rsm stopped this server: {type(error).__name__}: {text}; the log has the details"
        )
    sys.stderr.write(f"Error: {text}\n")


def tune_process() -> None:
    """Settings of the whole interpreter, for a process that does nothing else but serve."""
    # The storage thread comes back from a sync and needs the interpreter lock to say so. While the loop is busy it
    # gets it after this interval: 5 ms, the default, is longer than the sync itself.
    sys.setswitchinterval(0.0005)
    # The collector looks for cycles, of which a server makes few; what it has much of, keys and entries, lives long
    # and is in no cycle. So: young objects often enough to be cheap, and the whole heap, whose every visit would
    # stop the server for a time in proportion to what it stores, practically never.
    gc.set_threshold(20_000, 10, 100_000)
    # Ten thousand idle connections are ten thousand files.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
