"""Who leads, and how each server is: asked of every server several times a second, and written down when it changes.

A server that leads but has not been heard of its deposition still says that it leads; so of several that say it, the
one with the highest ballot counts. Nothing here is needed for the verdict: it is what the report draws, how the nemesis
knows whom to strike, and how the run sees that all servers have come to the same state.
"""

import asyncio
from collections.abc import Mapping

import grpc

from paxos_rsm._proto import admin_pb2, admin_pb2_grpc
from paxos_rsm.testing.chaos.recorder import Recorder

__all__ = ["DOWN", "Observer"]

POLL_S = 0.08
ANSWER_S = 0.4
"""A server that does not answer within this is drawn as one that is gone."""
DIGEST_S = 20.0
STALL_TICK_S = 0.005
STALL_NOTED_MS = 20.0
DOWN = "down"

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Observer:
    """Asks from ``start`` to ``close``. Belongs to one event loop."""

    def __init__(self, endpoints: Mapping[str, str], recorder: Recorder) -> None:
        self._endpoints = dict(endpoints)
        self._recorder = recorder
        self._tasks: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: dict[str, admin_pb2_grpc.AdminAsyncStub] = {}
        self._rounds: dict[str, int] = {}
        """The ballot's round of each server that leads, as it says."""
        self.roles: dict[str, str] = dict.fromkeys(endpoints, DOWN)
        self.leader: str | None = None
        self.leader_changes: list[float] = []
        """When another than before was seen to lead, in ms."""
        self.stalls: list[tuple[float, float]] = []
        """When this loop stood still, and for how long, in ms: what is seen to be slow may be the one who looks."""
        self._last_leader: str | None = None

    def start(self) -> None:
        """Begins to ask."""
        for name, endpoint in self._endpoints.items():
            channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
            self._channels.append(channel)
            self._stubs[name] = admin_pb2_grpc.AdminStub(channel)
            self._tasks.append(asyncio.create_task(self._watch(name)))
        self._tasks.append(asyncio.create_task(self._feel_stalls()))

    async def close(self) -> None:
        """Ends asking. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels), return_exceptions=True)
        self._channels.clear()

    async def ask(self, name: str, *, digest: bool = False) -> admin_pb2.StatusResponse | None:
        """What a server says of itself; None where it does not answer in time."""
        timeout_s = DIGEST_S if digest else ANSWER_S
        try:
            return await self._stubs[name].Status(admin_pb2.StatusRequest(digest=digest), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None

    async def states(self) -> dict[str, tuple[int, str] | None]:
        """Applied slot and digest of every server; None for one that does not answer."""
        answers = await asyncio.gather(*(self.ask(name, digest=True) for name in self._endpoints))
        return {
            name: None if answer is None else (answer.applied_slot, answer.digest.hex())
            for name, answer in zip(self._endpoints, answers, strict=True)
        }

    def longest_stall_ms(self, begin_ms: float, end_ms: float) -> float:
        """How long this loop stood still at most, within a time."""
        return max((ms for at, ms in self.stalls if begin_ms <= at <= end_ms), default=0.0)

    def changes_within(self, begin_ms: float, end_ms: float) -> int:
        """How often somebody else was seen to lead, within a time."""
        return sum(1 for at in self.leader_changes if begin_ms <= at <= end_ms)

    async def _watch(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            answer = await self.ask(name)
            self._take(name, answer)
            await asyncio.sleep(max(POLL_S / 4, asked + POLL_S - loop.time()))

    def _take(self, name: str, answer: admin_pb2.StatusResponse | None) -> None:
        role = DOWN if answer is None else answer.role
        self._rounds.pop(name, None)
        if answer is not None and role == "leader":
            self._rounds[name] = answer.ballot.round
        if role != self.roles[name]:
            self.roles[name] = role
            ballot = 0 if answer is None else answer.ballot.round
            self._recorder.event("role", server=name, role=role, round=ballot)
        self.leader = max(self._rounds, key=self._rounds.__getitem__, default=None)
        if self.leader is not None and self.leader != self._last_leader:
            at = self._recorder.event("leader", server=self.leader, round=self._rounds[self.leader])
            if self._last_leader is not None:
                self.leader_changes.append(at)
            self._last_leader = self.leader

    async def _feel_stalls(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            slept = loop.time()
            await asyncio.sleep(STALL_TICK_S)
            late_ms = (loop.time() - slept - STALL_TICK_S) * 1e3
            if late_ms >= STALL_NOTED_MS:
                self.stalls.append((self._recorder.now_ms(), late_ms))
