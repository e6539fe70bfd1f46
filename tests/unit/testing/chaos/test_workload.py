"""The clients write down what they did, and call nothing failed that may have happened."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.checker import read_history
from paxos_rsm.checker.revisions import check_revisions
from paxos_rsm.client.txn import Compare, Op, TxnResult
from paxos_rsm.client.types import GetResult, KeyValue, PutResult, RangeResult
from paxos_rsm.errors import (
    ClientError,
    DeadlineExceeded,
    ResourceExhausted,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from paxos_rsm.testing.chaos import workload
from paxos_rsm.testing.chaos.recorder import Recorder
from paxos_rsm.testing.chaos.workload import Load, Rates, status_of_failure
from tests.unit.testing.chaos.fakes import until

ENDPOINTS = {"n1": "n1:1", "n2": "n2:1", "n3": "n3:1"}


class FakeStore:
    """A store in this process, right unless told otherwise."""

    def __init__(self) -> None:
        self.revision = 1
        self.kvs: dict[bytes, KeyValue] = {}
        self.fails_with: list[BaseException] = []
        self.clients: list[tuple[str, ...]] = []

    def put(self, key: bytes, value: bytes) -> KeyValue | None:
        before = self.kvs.get(key)
        create, version = (before.create_revision, before.version + 1) if before else (self.revision, 1)
        self.kvs[key] = KeyValue(key, value, version, create, self.revision)
        return before

    def read(self, key: bytes) -> GetResult:
        kv = self.kvs.get(key)
        if kv is None:
            return GetResult(key, None, 0, 0, 0, self.revision)
        return GetResult(key, kv.value, kv.version, kv.create_revision, kv.mod_revision, self.revision)


class FakeClient:
    """An AsyncClient of the store above."""

    store: FakeStore

    def __init__(self, endpoints: Any, timeout_s: float) -> None:
        self.store.clients.append(tuple(endpoints))

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.store.fails_with:
            raise self.store.fails_with.pop()

    async def close(self) -> None:
        pass

    async def put(self, key: str, value: str, *, prev_kv: bool = False) -> PutResult:
        await self._turn()
        self.store.revision += 1
        before = self.store.put(key.encode(), value.encode())
        return PutResult(self.store.revision, before if prev_kv else None)

    async def get(self, key: str) -> GetResult:
        await self._turn()
        return self.store.read(key.encode())

    async def range(self, *, prefix: str) -> RangeResult:
        await self._turn()
        kvs = tuple(kv for key, kv in sorted(self.store.kvs.items()) if key.startswith(prefix.encode()))
        return RangeResult(kvs, len(kvs), False, self.store.revision)

    async def txn(
        self, compares: list[Compare], success: list[Op], failure: list[Op] | None = None
    ) -> TxnResult:
        await self._turn()
        holds = all(self._holds(compare) for compare in compares)
        ops = success if holds else failure or []
        writes = any(not op.single for op in ops)
        deletes = [
            op.message.request_delete_range.key for op in ops if op.message.HasField("request_delete_range")
        ]
        if writes and (not deletes or any(key in self.store.kvs for key in deletes)):
            self.store.revision += 1
        return TxnResult(holds, tuple(self._do(op) for op in ops), self.store.revision)

    def _do(self, op: Op) -> Any:
        if op.single:
            return self.store.read(op.message.request_range.key)
        if op.message.HasField("request_delete_range"):
            return int(self.store.kvs.pop(op.message.request_delete_range.key, None) is not None)
        put = op.message.request_put
        self.store.put(put.key, put.value)
        return PutResult(self.store.revision)

    def _holds(self, compare: Compare) -> bool:
        kv = self.store.kvs.get(compare.message.key)
        if compare.message.WhichOneof("target_union") == "value":
            return kv is not None and kv.value == compare.message.value
        return kv is None


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    made = FakeStore()
    FakeClient.store = made
    monkeypatch.setattr(workload, "AsyncClient", FakeClient)
    return made


RATES = Rates(keys=900, transactions=300, counter=100, once=100, probes=300)


async def test_everything_is_done_and_the_history_is_right(tmp_path: Path, store: FakeStore) -> None:
    with Recorder(tmp_path) as recorder:
        load = Load(ENDPOINTS, recorder, seed=1, rates=RATES)
        load.start()
        await until(lambda: recorder.statuses["ok"] > 600 and len(load.once_acknowledged) > 20)
        await load.finish()
    history = read_history(recorder.history_path)
    assert {op.op for op in history} == {"put", "get", "delete", "txn", "range"}
    prefixes = {op.key[:1] for op in history}
    assert prefixes == {"k", "m", "c", "o", "p"}
    result = check_revisions(history, timeout_s=30)
    assert result.ok, result.reason
    values = [op.input for op in history if op.op == "put"]
    assert len(set(values)) == len(values)
    assert load.revisions.gaps(store.revision) == []
    assert all(store.kvs[key.encode()].mod_revision == at for key, at in load.once_acknowledged.items())


async def test_a_client_for_each_server_two_for_all_and_a_prober_each(
    tmp_path: Path, store: FakeStore
) -> None:
    with Recorder(tmp_path) as recorder:
        load = Load(ENDPOINTS, recorder)
        load.start()
        await load.finish()
    alone = [(endpoint,) for endpoint in ENDPOINTS.values()]
    everyone = tuple(ENDPOINTS.values())
    assert store.clients == [*alone, everyone, everyone, *alone]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("x"), "fail"),
        (ResourceExhausted("x"), "fail"),
        (DeadlineExceeded("x"), "fail"),
        (UnknownOutcome("x"), "unknown"),
        (SessionExpired("x"), "unknown"),
        (ClientError("x"), "unknown"),
        (asyncio.CancelledError(), "unknown"),
    ],
)
def test_only_what_surely_did_not_happen_has_failed(error: BaseException, status: str) -> None:
    assert status_of_failure(error) == status


async def test_a_process_whose_outcome_is_unknown_does_nothing_any_more(
    tmp_path: Path, store: FakeStore
) -> None:
    with Recorder(tmp_path) as recorder:
        load = Load(ENDPOINTS, recorder, rates=Rates(100, 20, 10, 10, 0))
        load.start()
        await until(lambda: recorder.statuses["ok"] > 10)
        store.fails_with = [UnknownOutcome("lost"), Unavailable("nobody")]
        await until(lambda: recorder.statuses["unknown"] >= 1 and recorder.statuses["fail"] >= 1)
        await until(lambda: recorder.statuses["ok"] > 60)
        await load.finish()
    history = read_history(recorder.history_path)
    (lost,) = [op for op in history if op.status == "unknown"]
    assert lost.return_ is None
    assert not [op for op in history if op.process == lost.process and op.call > lost.call]
    assert recorder.errors == {"UnknownOutcome": 1, "Unavailable": 1}
    if lost.op not in ("get", "range"):
        assert len(load.revisions.open_writes) == 1


async def test_a_process_does_one_thing_at_a_time(tmp_path: Path, store: FakeStore) -> None:
    with Recorder(tmp_path) as recorder:
        load = Load(ENDPOINTS, recorder, rates=RATES)
        load.start()
        await until(lambda: recorder.statuses["ok"] > 300)
        await load.finish()
    last: dict[Any, float] = {}
    for op in read_history(recorder.history_path):
        assert op.return_ is not None
        assert op.call >= last.get(op.process, 0.0)
        last[op.process] = op.return_


async def test_a_bug_comes_out_of_finish(tmp_path: Path, store: FakeStore) -> None:
    with Recorder(tmp_path) as recorder:
        load = Load(ENDPOINTS, recorder, rates=RATES)
        load.start()
        store.fails_with = [ValueError("a bug")]
        await until(lambda: load.failure is not None)
        with pytest.raises(ValueError, match="a bug"):
            await load.finish()
