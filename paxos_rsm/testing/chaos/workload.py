"""The clients: what they ask of the servers while these are being broken, and how it is written down.

Everybody uses the SDK as users do. To each server one client is bound, so that every server is exercised and shows
what it answers by itself; two more go wherever they find one that works. What they do:

keys
    puts, linearizable gets, deletes and compare-and-swaps on keys of their own epoch, ``k0003/17``. No value is ever
    written twice. Checked key by key.
transactions
    two keys at once, and ranges over all of an epoch's, ``m0003/``. Checked by replaying revisions.
counter
    ``c0003``: read it, raise it by one with a compare-and-swap. A swap that is executed twice tells its caller that
    it failed.
once
    ``once/5/000123``: each key written once, never again. At the end each is there, at version 1.
probes
    a lone small write every few milliseconds, each server's turn after the other's, none waiting for the one before:
    how long writes stand still is read off them.

**Epochs** keep the history checkable: an operation whose outcome is unknown stays open for ever, and each that is
open doubles what a checker may have to try. So the clients move on to fresh keys every :data:`EPOCH_S`.

A call that fails is written down as ``fail`` only where the SDK promises that nothing happened; every other error is
``unknown``, and the process (in the history's sense) that made the call never does anything again.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from paxos_rsm.checker.store import made_revision
from paxos_rsm.client import AsyncClient, Compare, Op
from paxos_rsm.client.txn import TxnResult
from paxos_rsm.client.types import GetResult
from paxos_rsm.errors import ClientError, DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from paxos_rsm.testing.chaos.attribution import OpenWrite, Revisions, kv_members
from paxos_rsm.testing.chaos.recorder import Recorder

__all__ = ["EPOCH_S", "NOT_EXECUTED", "Load", "Rates", "status_of_failure"]

EPOCH_S = 15.0
KEYS = 30
"""Of one epoch, for single-key operations."""
TXN_KEYS = 6
DEADLINE_S = 4.0
PROBE_DEADLINE_S = 3.0
IN_FLIGHT_MAX = 24
"""Of one client, for each sort of work: what is beyond is not asked."""
BURST = 3
"""Operations that a client begins together: they share frames and entries, which two cores can carry."""
NOT_EXECUTED = (InvalidArgument, Unavailable, ResourceExhausted, DeadlineExceeded)
"""What the SDK raises where it knows that nothing has happened."""

Work: TypeAlias = Callable[["_Caller"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second, all clients together."""

    keys: float = 240.0
    transactions: float = 40.0
    counter: float = 10.0
    once: float = 20.0
    probes: float = 100.0


def status_of_failure(error: BaseException) -> str:
    """``fail`` where nothing has happened for certain, ``unknown`` otherwise."""
    return "fail" if isinstance(error, NOT_EXECUTED) else "unknown"


class Load:
    """All clients, from ``start`` to ``finish``. Belongs to one event loop."""

    def __init__(
        self, endpoints: Mapping[str, str], recorder: Recorder, *, seed: int = 0, rates: Rates | None = None
    ) -> None:
        """``endpoints``: of each server, by its name."""
        self.recorder = recorder
        self.rates = rates or Rates()
        self.once_acknowledged: dict[str, int] = {}
        """Keys that were written once, and the revision that each made."""
        self.revisions = Revisions()
        """Which were acknowledged, and the writes of unknown outcome that may have made the others."""
        self.seen: dict[str, str | None] = {}
        """A guess at what each key of this epoch holds, so that some swaps succeed."""
        self._endpoints = dict(endpoints)
        self._rng = random.Random(seed)
        self._values = itertools.count(1)
        self._processes = itertools.count(1)
        self._idle: list[int] = []
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._callers: list[_Caller] = []
        self._clients: list[AsyncClient] = []
        self._failure: BaseException | None = None
        self._epoch = -1

    def start(self) -> None:
        """Begins."""
        bound = [self._caller(name, [endpoint]) for name, endpoint in self._endpoints.items()]
        free = [self._caller(name, list(self._endpoints.values())) for name in ("any1", "any2")]
        everyone = [*bound, *free]
        for index, caller in enumerate(everyone):
            self._begin(
                caller, _Caller.one_key, self.rates.keys / len(everyone), BURST, index / len(everyone)
            )
            self._begin(caller, _Caller.once, self.rates.once / len(everyone), 1, index / len(everyone))
        for index, caller in enumerate(free):
            self._begin(caller, _Caller.transaction, self.rates.transactions / len(free), 2, index / 2)
            self._begin(caller, _Caller.count, self.rates.counter / len(free), 1, index / 2)
        for index, (name, endpoint) in enumerate(self._endpoints.items()):
            prober = self._caller(name, [endpoint], PROBE_DEADLINE_S)
            self._begin(prober, _Caller.probe, self.rates.probes / len(bound), 1, index / len(bound))

    async def finish(self) -> None:
        """Asks nothing more, waits for the answers that are under way, and closes the clients.

        Raises what has gone wrong in a client, where it is not an error of a call.
        """
        self._stopping = True
        await asyncio.gather(*self._tasks)
        under_way = [task for caller in self._callers for task in caller.under_way]
        if under_way:
            await asyncio.wait(under_way, timeout=DEADLINE_S + 5)
        await self.close()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Ends at once, answers or not."""
        self._stopping = True
        for task in [*self._tasks, *(task for caller in self._callers for task in caller.under_way)]:
            task.cancel()
        await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True)

    @property
    def failure(self) -> BaseException | None:
        """A bug that a client has met, of its own or of the SDK's."""
        return self._failure

    # ---- for the callers -----------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The number of the epoch of now."""
        found = int(self.recorder.now_ms() / 1e3 / EPOCH_S)
        if found != self._epoch:
            self._epoch = found
            self.seen = {}
        return found

    def value(self) -> str:
        """One that was never written before."""
        return f"v{next(self._values)}"

    async def do(
        self, op: str, key: str, given: Any, call: Callable[[], Awaitable[Any]], write: bool = True
    ) -> Any | None:
        """Makes a call, writes it down, and gives its output as JSON has it; None where it failed."""
        process = self._idle.pop() if self._idle else next(self._processes)
        call_ms, highest = self.recorder.now_ms(), self.revisions.highest
        try:
            output = await call()
        except (ClientError, asyncio.CancelledError) as error:
            status = status_of_failure(error)
            self.recorder.errors[type(error).__name__] += 1
            self.recorder.operation(process, op, key, given, None, call_ms, status=status, write=write)
            if status == "fail":
                self._idle.append(process)
            elif write:
                self.revisions.open_writes.append(OpenWrite(_keys(op, key, given), highest))
            if isinstance(error, ClientError):
                return None
            raise
        self.recorder.operation(process, op, key, given, output, call_ms, write=write)
        self.revisions.told(output["revision"], made=made_revision(op, given, output))
        self._idle.append(process)
        return output

    def went_wrong(self, error: BaseException) -> None:
        """A call has raised what it never should."""
        self._failure = self._failure or error

    def _caller(self, name: str, endpoints: Sequence[str], deadline_s: float = DEADLINE_S) -> "_Caller":
        client = AsyncClient(endpoints, timeout_s=deadline_s)
        self._clients.append(client)
        caller = _Caller(name, client, self, random.Random(self._rng.getrandbits(32)), len(self._callers))
        self._callers.append(caller)
        return caller

    def _begin(self, caller: "_Caller", work: Work, per_s: float, burst: int, phase: float) -> None:
        if per_s > 0:
            self._tasks.append(asyncio.create_task(self._pace(caller, work, burst / per_s, burst, phase)))

    async def _pace(self, caller: "_Caller", work: Work, period_s: float, burst: int, phase: float) -> None:
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[None]] = set()
        due = loop.time() + phase * period_s
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - loop.time()))
            # What was missed while this loop stood still is not made up for: that would be a burst.
            due = max(due + period_s, loop.time() - period_s)
            for _ in range(min(burst, IN_FLIGHT_MAX - len(under_way))):
                task = asyncio.create_task(self._guard(work, caller))
                for tasks in (under_way, caller.under_way):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

    async def _guard(self, work: Work, caller: "_Caller") -> None:
        try:
            await work(caller)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self.went_wrong(error)


class _Caller:
    """One client and what it may be asked to do."""

    def __init__(self, name: str, client: AsyncClient, load: Load, rng: random.Random, number: int) -> None:
        self.name = name
        self.under_way: set[asyncio.Task[None]] = set()
        self._client = client
        self._load = load
        self._rng = rng
        self._number = number
        self._once = itertools.count()
        self._probe_key = f"probe/{name}"

    # ---- single keys ---------------------------------------------------------------------------------------

    async def one_key(self) -> None:
        """A put, a get, a delete or a compare-and-swap."""
        key = f"k{self._load.epoch:04d}/{self._rng.randrange(KEYS):02d}"
        drawn = self._rng.random()
        if drawn < 0.40:
            await self.put(key)
        elif drawn < 0.70:
            await self.get(key)
        elif drawn < 0.92:
            await self.swap(key, self._load.seen.get(key), self._load.value())
        else:
            await self.delete(key)

    async def put(self, key: str) -> None:
        """Writes a value that no other write has."""
        value = self._load.value()

        await self._put(key, value)
        self._load.seen[key] = value

    async def _put(self, key: str, value: str) -> None:
        async def call() -> Any:
            return {"revision": (await self._client.put(key, value)).revision}

        await self._load.do("put", key, value, call)

    async def get(self, key: str) -> str | None:
        """Reads, linearizable."""

        async def call() -> Any:
            found = await self._client.get(key)
            self._load.seen[key] = _text(found)
            return {"revision": found.revision, "kv": kv_members(found)}

        output = await self._load.do("get", key, None, call, write=False)
        return None if output is None or output["kv"] is None else output["kv"]["value"]

    async def swap(self, key: str, expected: str | None, new: str) -> bool:
        """Compare-and-swap, as a transaction: that tells the revision too."""

        async def call() -> Any:
            done = await self._client.txn([_compare(key, expected)], [Op.put(key, new)])
            return {"revision": done.revision, "succeeded": done.succeeded, "responses": _responses(done)}

        given = {"compare": [_comparison(key, expected)], "success": [_put_request(key, new)], "failure": []}
        output = await self._load.do("txn", key, given, call)
        swapped = output is not None and bool(output["succeeded"])
        if swapped:
            self._load.seen[key] = new
        return swapped

    async def delete(self, key: str) -> None:
        """Deletes, as a transaction of one operation: that tells the revision too."""

        async def call() -> Any:
            done = await self._client.txn([], [Op.delete(key)])
            return {"revision": done.revision, "deleted": done.responses[0]}

        await self._load.do("delete", key, None, call)
        self._load.seen[key] = None

    async def count(self) -> None:
        """Raises the epoch's counter by one."""
        key = f"c{self._load.epoch:04d}"
        held = await self.get(key)
        number = int(held.partition(" ")[0]) if held else 0
        await self.swap(key, held, f"{number + 1} {self._load.value()}")

    async def probe(self) -> None:
        """A small write whose acknowledgement shows that writes go on."""
        await self._put(f"{self._probe_key}/{self._load.epoch:04d}", self._load.value())

    async def once(self) -> None:
        """Writes a key that nobody ever wrote or will write."""
        key, value = f"once/{self._number}/{next(self._once):06d}", self._load.value()

        async def call() -> Any:
            written = await self._client.put(key, value, prev_kv=True)
            self._load.once_acknowledged[key] = written.revision
            return {
                "revision": written.revision,
                "prev_kv": None if written.prev is None else kv_members(written.prev),
            }

        await self._load.do("put", key, value, call)

    # ---- several keys --------------------------------------------------------------------------------------

    async def transaction(self) -> None:
        """Two keys at once, or all of them read at once."""
        prefix = f"m{self._load.epoch:04d}/"
        first, second = (f"{prefix}{number}" for number in self._rng.sample(range(TXN_KEYS), 2))
        if self._rng.random() < 0.4:
            await self.range(prefix)
        else:
            await self.both(first, second)

    async def range(self, prefix: str) -> None:
        """Reads all keys of a prefix, linearizable."""

        async def call() -> Any:
            found = await self._client.range(prefix=prefix)
            kvs = [{"key": kv.key.decode(), **(kv_members(kv) or {})} for kv in found]
            return {"revision": found.revision, "kvs": kvs, "count": found.count}

        given = {"range_end": prefix[:-1] + chr(ord(prefix[-1]) + 1)}
        await self._load.do("range", prefix, given, call, write=False)

    async def both(self, first: str, second: str) -> None:
        """Writes both where the first is as this client believes, otherwise reads both."""
        held = self._load.seen.get(first)
        values = {first: self._load.value(), second: self._load.value()}
        success = [Op.put(key, value) for key, value in values.items()]
        failure = [Op.get(key) for key in values]

        async def call() -> Any:
            done = await self._client.txn([_compare(first, held)], success, failure)
            for key, response in zip(values, done.responses, strict=True):
                self._load.seen[key] = _text(response) if isinstance(response, GetResult) else values[key]
            return {"revision": done.revision, "succeeded": done.succeeded, "responses": _responses(done)}

        given = {
            "compare": [_comparison(first, held)],
            "success": [_put_request(key, value) for key, value in values.items()],
            "failure": [{"op": "get", "key": key} for key in values],
        }
        await self._load.do("txn", first, given, call)


# ---- as a history has it (paxos_rsm/checker/store.py) --------------------------------------------------------


def _compare(key: str, expected: str | None) -> Compare:
    return Compare.missing(key) if expected is None else Compare.value(key, "==", expected)


def _comparison(key: str, expected: str | None) -> dict[str, Any]:
    if expected is None:
        return {"key": key, "target": "create", "result": "=", "value": 0}
    return {"key": key, "target": "value", "result": "=", "value": expected}


def _keys(op: str, key: str, given: Any) -> tuple[str, ...]:
    """Those that a write is about."""
    return tuple(request["key"] for request in given["success"]) if op == "txn" else (key,)


def _put_request(key: str, value: str) -> dict[str, Any]:
    return {"op": "put", "key": key, "input": value}


def _text(found: GetResult) -> str | None:
    return None if found.value is None else found.value.decode()


def _responses(done: TxnResult) -> list[dict[str, Any]]:
    return [{"kv": kv_members(each)} if isinstance(each, GetResult) else {} for each in done.responses]
