"""An AsyncClient without servers: the real key-value machine in this process, behind the client's own calls."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.client import GetResult, KeyValue, Leader, PutResult, RangeResult, WatchEvent
from paxos_rsm.client.commands import prefix_end
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import InvalidArgument, PaxosRsmError
from paxos_rsm.machines.base import Position
from paxos_rsm.machines.kv.machine import KeyValueMachine

T = TypeVar("T")

SORT_TARGETS = {"create_revision": "CREATE", "mod_revision": "MOD"}


class FakeHold:
    """A lock, or an election, that is won at once: its key is in the store while it is held."""

    def __init__(self, client: "FakeClient", name: bytes) -> None:
        self._client = client
        self.key = name + b"/7b"
        self.fencing_token = 0

    async def __aenter__(self) -> Self:
        if isinstance(self, FakeLock):
            await self.enter(b"")
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._client.forget(self.key)
        self._client._note("released")

    async def enter(self, value: bytes) -> None:
        """Takes it."""
        self.fencing_token = (await self._client.put(self.key, value)).revision

    async def guard(self, work: Awaitable[T]) -> T:
        if self._client.interrupted:
            signal.raise_signal(signal.SIGINT)
        if self._client.lost is None:
            return await work
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        raise self._client.lost


class FakeLock(FakeHold):
    """Taken when it is entered."""


class FakeElection(FakeHold):
    """Won by a campaign."""

    async def campaign(self, value: bytes) -> None:
        await self.enter(value)

    async def observe(self) -> AsyncIterator[Leader]:
        for number, value in enumerate((b"me", b"you"), 1):
            yield Leader(b"e/%d" % number, value, number, number + 10)


class FakeWatch:
    """Gives what the test has put into ``FakeClient.batches``, then ends."""

    resume_revision = 2**62

    def __init__(self, batches: list[list[WatchEvent]]) -> None:
        self._batches = batches

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    async def next_batch(self) -> list[WatchEvent]:
        await asyncio.sleep(0)
        return self._batches.pop(0) if self._batches else []


class FakeScan:
    """A range, all of it in one page."""

    revision = 0

    def __init__(self, client: "FakeClient", key: bytes, end: bytes, options: dict[str, Any]) -> None:
        self._client = client
        self._bounds = (key, end)
        self._options = options

    async def __aiter__(self) -> AsyncIterator[KeyValue]:
        self._client._note("scan", bounds=self._bounds, **self._options)
        given: dict[str, Any] = {
            "limit": 0,
            "revision": 0,
            "sort_by": None,
            "count_only": False,
            "serializable": False,
        }
        found = await self._client.range(self._bounds[0], self._bounds[1], **given, **self._options)
        self.revision = found.revision
        for kv in found.kvs:
            yield kv


class FakeClient:
    """Takes the calls of AsyncClient; all instances share one store, and note how they were called."""

    machine: Any
    """The key-value machine, where a test does not put another one here."""
    calls: list[tuple[str, dict[str, Any]]]
    failure: PaxosRsmError | None
    """What every call raises."""
    lost: PaxosRsmError | None
    """What ends a lock or a leadership."""
    interrupted: bool
    """Somebody presses Ctrl-C once a lock or a leadership is held."""
    batches: list[list[WatchEvent]]

    @classmethod
    def reset(cls) -> None:
        cls.machine, cls.calls, cls.failure, cls.batches = KeyValueMachine(KvCodec()), [], None, []
        cls.lost, cls.interrupted = None, False

    @classmethod
    def stored(cls) -> dict[bytes, pb.KeyValue]:
        """Everything there is."""
        command = pb.KvCommand(range=pb.RangeRequest(key=b"\0", range_end=b"\0"))
        found = pb.KvResult.FromString(cls.machine.query(command.SerializeToString()))
        return {kv.key: kv for kv in found.range.kvs}

    @classmethod
    def forget(cls, key: bytes) -> None:
        """Loses a key, as no store may."""
        command = pb.KvCommand(delete_range=pb.DeleteRangeRequest(key=key))
        cls.machine.apply(command.SerializeToString(), Position(1, 0))

    @classmethod
    def commands(cls) -> Iterator[pb.KvCommand]:
        """What was submitted."""
        for name, arguments in cls.calls:
            if name == "submit":
                yield pb.KvCommand.FromString(arguments["command"])

    def __init__(self, endpoints: Any, **settings: Any) -> None:
        self._note("client", endpoints=tuple(endpoints), **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note("close")

    def _note(self, what: str, **arguments: Any) -> None:
        self.calls.append((what, arguments))
        if self.failure is not None and what not in ("client", "close"):
            raise self.failure

    def _apply(self, command: pb.KvCommand) -> pb.KvResult:
        result = self.machine.apply(command.SerializeToString(), Position(1, 0))
        return pb.KvResult.FromString(result)

    def scan(self, key: bytes, end: bytes, **options: Any) -> "FakeScan":
        return FakeScan(self, key, end, options)

    async def range(self, key: bytes, end: bytes | None = None, **options: Any) -> RangeResult:
        self._note("range", key=key, end=end, **options)
        ordered = options["sort_by"] is not None or options["descending"]
        target = options["sort_by"] or "key"
        order = ("DESCEND" if options["descending"] else "ASCEND") if ordered else "NONE"
        request = pb.RangeRequest(
            key=key,
            range_end=end or b"",
            limit=options["limit"],
            revision=options["revision"],
            sort_order=pb.RangeRequest.SortOrder.Value(order),
            sort_target=pb.RangeRequest.SortTarget.Value(SORT_TARGETS.get(target, target.upper())),
            keys_only=options["keys_only"],
            count_only=options["count_only"],
        )
        result = pb.KvResult.FromString(self.machine.query(pb.KvCommand(range=request).SerializeToString()))
        if result.HasField("error"):
            raise InvalidArgument(result.error.message)
        kvs = tuple(
            KeyValue(kv.key, kv.value, kv.version, kv.create_revision, kv.mod_revision, kv.lease)
            for kv in result.range.kvs
        )
        return RangeResult(kvs, result.range.count, result.range.more, result.range.header.revision, 7, 20)

    async def put(self, key: bytes | str, value: bytes | str) -> PutResult:
        key = key.encode() if isinstance(key, str) else key
        value = value.encode() if isinstance(value, str) else value
        self._note("put", key=key, value=value)
        put = self._apply(pb.KvCommand(put=pb.PutRequest(key=key, value=value))).put
        return PutResult(put.header.revision)

    async def get(self, key: bytes | str, **options: Any) -> Any:
        key = key.encode() if isinstance(key, str) else key
        self._note("get", key=key, **options)
        kv = self.stored().get(key)
        if kv is None:
            return GetResult(key, None, 0, 0, 0, self.machine.revision)
        return GetResult(
            key, kv.value, kv.version, kv.create_revision, kv.mod_revision, self.machine.revision
        )

    async def delete(self, key: bytes | None = None, *, prefix: str | None = None) -> int:
        self._note("delete", key=key, prefix=prefix)
        start = (prefix or "").encode() if key is None else key
        end = prefix_end(start) if key is None else b""
        return self._apply(
            pb.KvCommand(delete_range=pb.DeleteRangeRequest(key=start, range_end=end))
        ).delete_range.deleted

    async def compare_and_swap(self, key: bytes, expected: bytes | None, new: bytes) -> bool:
        self._note("compare_and_swap", key=key, expected=expected, new=new)
        if expected is None:
            compare = pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=0)
        else:
            compare = pb.Compare(target=pb.Compare.VALUE, key=key, value=expected)
        put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=new))
        return self._apply(pb.KvCommand(txn=pb.TxnRequest(compare=[compare], success=[put]))).txn.succeeded

    async def submit(self, command: bytes, *, timeout_s: float | None = None) -> bytes:
        self._note("submit", command=command)
        result: bytes = self.machine.apply(command, Position(1, 0))
        return result

    async def query(
        self, request: bytes, *, serializable: bool = False, timeout_s: float | None = None
    ) -> bytes:
        self._note("query", request=request, serializable=serializable)
        result: bytes = self.machine.query(request)
        return result

    def watch(self, key: bytes, end: bytes | None, **options: Any) -> FakeWatch:
        self.calls.append(("watch", {"key": key, "end": end, **options}))
        return FakeWatch(list(self.batches))

    def lock(self, name: bytes, *, ttl_s: int) -> FakeLock:
        self.calls.append(("lock", {"name": name, "ttl_s": ttl_s}))
        return FakeLock(self, name)

    def election(self, name: bytes, *, ttl_s: int = 10) -> FakeElection:
        self.calls.append(("election", {"name": name, "ttl_s": ttl_s}))
        return FakeElection(self, name)
