"""Who made which revision is asked of the store, and what it says becomes part of the history."""

from pathlib import Path
from typing import Any, Self

import pytest

from paxos_rsm.checker import Verdict, read_history
from paxos_rsm.checker.revisions import check_revisions
from paxos_rsm.client.types import GetResult
from paxos_rsm.testing.chaos import attribution
from paxos_rsm.testing.chaos.attribution import OpenWrite, Revisions, attribute, kv_members
from paxos_rsm.testing.chaos.recorder import Recorder

MISSING = GetResult(b"", None, 0, 0, 0, 5)


def held(value: str, mod: int, version: int = 1) -> GetResult:
    return GetResult(b"", value.encode(), version, mod - version + 1, mod, 5)


class Store:
    """What each key held from which revision on."""

    versions: dict[str, dict[int, GetResult]]

    def __init__(self, endpoints: list[str], timeout_s: float) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def get(self, key: str, *, revision: int) -> GetResult:
        found = [at for at in self.versions.get(key, {}) if at <= revision]
        return self.versions[key][max(found)] if found else MISSING


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[Store]:
    monkeypatch.setattr(attribution, "AsyncClient", Store)
    Store.versions = {}
    return Store


def test_revisions_are_kept_a_bit_each() -> None:
    revisions = Revisions()
    assert revisions.gaps(1) == []
    for made in (2, 3, 5, 40_000):
        revisions.told(made, made=True)
    revisions.told(6, made=False)
    assert revisions.highest == 40_000
    assert revisions.gaps(8) == [4, 6, 7, 8]
    assert revisions.was_acknowledged(40_000)
    assert not revisions.was_acknowledged(10**9)


async def test_writes_and_deletes_are_found_at_their_gap(tmp_path: Path, store: type[Store]) -> None:
    store.versions = {
        "a": {2: held("v1", 2), 3: held("v2", 3, 2)},  # 2 was acknowledged, 3 was not
        "b": {4: held("v3", 4), 5: MISSING},  # neither was
    }
    revisions = Revisions()
    revisions.told(2, made=True)
    revisions.open_writes += [OpenWrite(("a",), 2), OpenWrite(("b",), 2), OpenWrite(("b",), 2)]
    with Recorder(tmp_path) as recorder:
        assert await attribute(["x"], revisions, 5, recorder) == (3, 3)
    told = [(op.key, op.input["revision"], op.output["kv"]) for op in read_history(recorder.history_path)]
    assert ("a", 3, {"value": "v2", "create_revision": 2, "mod_revision": 3, "version": 2}) in told
    assert [kv["value"] for key, at, kv in told if (key, at) == ("b", 4) and kv] == ["v3"] * 2
    assert [kv for key, at, kv in told if (key, at) == ("b", 5)] == [None]


async def test_a_gap_that_nothing_explains_stays_one(tmp_path: Path, store: type[Store]) -> None:
    revisions = Revisions()
    revisions.open_writes.append(OpenWrite(("a",), 2))
    with Recorder(tmp_path) as recorder:
        assert await attribute(["x"], revisions, 3, recorder) == (2, 0)
    assert recorder.history_path.read_text() == ""


async def test_a_write_cannot_have_made_what_was_told_before_it_began(
    tmp_path: Path, store: type[Store]
) -> None:
    store.versions = {"a": {2: held("v1", 2)}}
    revisions = Revisions()
    revisions.open_writes.append(OpenWrite(("a",), 2))
    with Recorder(tmp_path) as recorder:
        assert await attribute(["x"], revisions, 2, recorder) == (1, 0)


async def test_the_checker_decides_with_it_and_finds_a_double_execution(
    tmp_path: Path, store: type[Store]
) -> None:
    """Many open writes: who made what is clear with the reads; a write that made two revisions is a violation."""
    keys = [f"k{number}" for number in range(40)]
    with Recorder(tmp_path) as recorder:
        for number, key in enumerate(keys):
            recorder.operation(number + 1, "put", key, f"v{number}", None, 0.0, status="unknown", write=True)
        revisions = Revisions(open_writes=[OpenWrite((key,), 1) for key in keys])
        store.versions = {
            key: {number + 2: held(f"v{number}", number + 2)} for number, key in enumerate(keys)
        }
        await attribute(["x"], revisions, len(keys) + 1, recorder)
    history = read_history(recorder.history_path)
    for op in history:
        if op.status == "ok":
            op.output = {**op.output, "revision": len(keys) + 1}
    assert check_revisions(history, timeout_s=20).verdict is Verdict.LINEARIZABLE

    store.versions["k3"][42] = held("v3", 42, 2)
    with Recorder(tmp_path / "again") as recorder:
        await attribute(["x"], revisions, 42, recorder)
    twice = read_history(recorder.history_path)
    for op in twice:
        op.output = {**op.output, "revision": 42}
    writes = [op for op in history if op.status == "unknown"]
    assert check_revisions([*writes, *twice], timeout_s=20).verdict is Verdict.VIOLATION


def test_members() -> None:
    assert kv_members(MISSING) is None
    expected: dict[str, Any] = {"value": "v", "create_revision": 3, "mod_revision": 3, "version": 1}
    assert kv_members(held("v", 3)) == expected
