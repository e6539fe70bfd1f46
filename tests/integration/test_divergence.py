"""A state that goes wrong in one server's memory: found within seconds, named, and rebuilt from the others.

Whole servers in this process, so that a test can reach into the state of one of them behind the log's back.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.client.async_client import AsyncClient
from paxos_rsm.machines.kv.types import DeleteRange, Put
from paxos_rsm.replica.loop import ReplicaLoop
from paxos_rsm.testing.in_process import InProcessCluster, InProcessServer
from tests.conftest import MEASURED
from tests.integration.kills import LONG

WAIT_S = 60.0


async def until(condition: Callable[[], bool], what: str) -> float:
    """How long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < WAIT_S, f"{what}: not within {WAIT_S:g} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


def replica_of(server: InProcessServer) -> ReplicaLoop:
    inner: Any = server._server
    replica: ReplicaLoop = inner._replica
    return replica


async def write(client: AsyncClient, count: int, prefix: str) -> None:
    """Each in a slot of its own."""
    for number in range(count):
        await client.put(f"{prefix}/{number % 40}", f"{number}")


def one_write_too_many(machine: Any) -> None:
    machine._store.put(Put(b"never", b"said"))


def one_key_lost(machine: Any) -> None:
    machine._store.delete_range(DeleteRange(b"a/1"))


PLANTED = {each.__name__: each for each in (one_write_too_many, one_key_lost)}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize(
    "leads",
    [pytest.param(True, id="leader", marks=LONG), pytest.param(False, id="follower")],
)
async def test_a_state_that_goes_wrong_is_found_named_and_rebuilt(
    planted: str,
    leads: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
) -> None:
    caplog.set_level(logging.INFO)
    async with InProcessCluster(3, directory=tmp_path) as cluster:
        servers = [cluster[f"n{number}"] for number in (1, 2, 3)]
        async with cluster.client() as client:
            await write(client, 200, "a")
            wrong = next(s for s in servers if (replica_of(s).status().role == "leader") is leads)
            right = [server for server in servers if server is not wrong]
            keeper = replica_of(wrong).snapshots
            assert keeper is not None
            await keeper.take()
            promised = replica_of(wrong).status().promised
            PLANTED[planted](wrong.machine)
            planted_at = replica_of(wrong).applied_slot
            writing = asyncio.create_task(write(client, 600, "b"))
            found_s = await until(
                lambda: any("is not that of a majority" in r.message for r in caplog.records), "found"
            )
            rebuilt_s = await until(lambda: not replica_of(wrong).replica.node.log.held, "rebuilt")
            await writing
            await write(client, 130, "c")
            await until(lambda: len({replica_of(each).applied_slot for each in servers}) == 1, "applied")
            assert len({each.machine.digest() for each in servers}) == 1
            await until(lambda: not any(replica_of(s).status().divergent for s in servers), "equal again")
            assert replica_of(wrong).status().promised >= promised
        sentence = next(
            r.message for r in caplog.records if "of this server is not that of a majority" in r.message
        )
        first = int(sentence.split("slot ")[1].split()[0])
        assert planted_at < first <= planted_at + 64, "the first slot that shows it"
        assert " and ".join(sorted(each.name for each in right)) in sentence
        assert any(f"the state of {wrong.name} is not that of" in r.message for r in caplog.records)
        # It stands in what was made durable, too.
        await wrong.restart()
        await until(lambda: replica_of(wrong).applied_slot >= replica_of(right[0]).applied_slot, "replayed")
        assert len({each.machine.digest() for each in servers}) == 1
    record_property(
        "measured", f"{planted} at the {'leader' if leads else 'follower'}: found after {found_s:.1f} s"
    )
    where = f"{planted} at the {'leader' if leads else 'follower'}"
    told = f"{where}: found after {found_s:.1f} s under writes, rebuilt {rebuilt_s:.1f} s after that"
    record_property(MEASURED, told)


async def test_where_two_differ_it_is_said_and_both_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with InProcessCluster(2, directory=tmp_path) as cluster, cluster.client() as client:
        await write(client, 70, "a")
        one_write_too_many(cluster["n2"].machine)
        await write(client, 200, "b")
        replicas = [replica_of(cluster[name]) for name in ("n1", "n2")]
        await until(lambda: all(len(each.status().divergent) == 2 for each in replicas), "both know")
        assert caplog.text.count("no majority says who is right") == 2
        await write(client, 10, "c")
        assert not any(each.replica.node.log.held for each in replicas)
