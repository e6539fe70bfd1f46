"""One load process: what it counts, on a clock that only tells, and what it says to its parent."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from time import perf_counter

import pytest

from paxos_rsm.cli import load
from paxos_rsm.cli.load import Job, Measured, generate, measure, serve
from paxos_rsm.cli.options import Settings
from paxos_rsm.errors import Unavailable
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import ROOT, own_environment

JOB = Job(
    kind="write",
    endpoints=("a:1", "b:2"),
    in_flight=4,
    rate=0,
    prefix="p/",
    keys=3,
    first_key=1,
    fill=(),
    value_bytes=5,
    serializable=False,
    command_timeout_s=5,
    dial_timeout_s=0.1,
)


async def measured(operate: Callable[[], Awaitable[None]], **options: float) -> Measured:
    found = Measured()
    settings = {"rate": 0.0, "warm_up_s": 0.0, "duration_s": 0.2, **options}
    in_flight = int(settings.pop("in_flight", 1))
    await measure(operate, found, in_flight=in_flight, **settings)
    return found


def count(found: Measured) -> int:
    return sum(found.latencies.to_json().values())


def test_a_job_is_the_same_on_the_other_side() -> None:
    assert Job.from_json(JOB.to_json()) == JOB
    assert Job.from_json(replace(JOB, fill=(1, 2)).to_json()).fill == (1, 2)
    assert JOB.settings() == Settings(endpoints=("a:1", "b:2"), command_timeout_s=5, dial_timeout_s=0.1)


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    now, most = 0, 0

    async def operate() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1

    found = await measured(operate, in_flight=7)
    assert most == 7
    assert now == 0
    assert count(found) >= found.answered > 0


async def test_the_warm_up_is_not_counted() -> None:
    async def operate() -> None:
        await asyncio.sleep(0)

    found = await measured(operate, warm_up_s=0.1, duration_s=0.1)
    assert found.total > found.answered > 0


async def test_what_began_in_the_window_is_waited_for_and_counts_among_latencies_not_operations() -> None:
    async def operate() -> None:
        await asyncio.sleep(0.4)

    found = await measured(operate, in_flight=3, duration_s=0.1)
    assert (count(found), found.answered) == (3, 0)
    assert min(map(int, found.latencies.to_json())) >= 390_000


async def test_errors_are_no_operations() -> None:
    async def operate() -> None:
        raise Unavailable("no leader")

    found = await measured(operate, in_flight=2)
    assert (count(found), found.answered) == (0, 0)
    assert found.errors >= 2
    assert found.first_error == "Unavailable: no leader"


async def test_a_bug_is_not_counted_but_raised() -> None:
    async def operate() -> None:
        raise KeyError("x")

    with pytest.raises(ExceptionGroup):
        await measured(operate)


async def test_with_a_rate_latency_counts_from_when_an_operation_was_due() -> None:
    """A stall of 200 ms holds up what was due meanwhile, and each of these counts its whole delay."""
    stalls = iter([0.2])

    async def operate() -> None:
        await asyncio.sleep(next(stalls, 0))

    found = await measured(operate, rate=100, duration_s=0.3)
    delays = sorted((int(us) for us in found.latencies.to_json()), reverse=True)
    assert len([us for us in delays if us > 50_000]) >= 10  # of the 20 that were due in those 200 ms
    closed = await measured(operate, duration_s=0.3)
    assert max(map(int, closed.latencies.to_json())) < delays[0]


async def test_a_rate_is_kept() -> None:
    started: list[float] = []

    async def operate() -> None:
        started.append(perf_counter())

    await measured(operate, rate=50, in_flight=5, duration_s=0.4)
    assert len(started) == 20


async def test_operations_go_around_the_keys(client: type[FakeClient]) -> None:
    write = generate(JOB, client([]))
    for _ in range(4):
        await write()
    puts = [arguments for what, arguments in client.calls if what == "put"]
    assert [put["key"] for put in puts] == [b"p/00000001", b"p/00000002", b"p/00000000", b"p/00000001"]
    assert {len(put["value"]) for put in puts} == {5}
    await generate(replace(JOB, kind="read", serializable=True), client([]))()
    assert client.calls[-1] == ("get", {"key": b"p/00000001", "serializable": True})


async def test_conversation_with_the_parent(
    client: type[FakeClient], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(['{"warm_up_s": 0, "duration_s": 0.3}', '{"clean": true}'])

    async def told() -> str:
        return next(lines)

    @contextlib.asynccontextmanager
    async def connected(settings: Settings) -> AsyncIterator[FakeClient]:
        yield client(settings.endpoints)

    async def get(self: FakeClient, key: bytes, **options: object) -> None:
        await asyncio.sleep(0.001)

    monkeypatch.setattr(client, "get", get)
    monkeypatch.setattr(load, "connected", connected)
    monkeypatch.setattr(load, "PROGRESS_INTERVAL_S", 0.05)
    await serve(replace(JOB, kind="read", fill=(0, 2)), told)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (said[0]["event"], said[1]["event"], said[-1]["event"]) == ("ready", "progress", "done")
    assert said[-1]["answered"] > 0
    assert said[-1]["errors"] == 0
    assert sum(said[-1]["latencies_us"].values()) >= said[-1]["answered"]
    filled = [arguments["key"] for what, arguments in client.calls if what == "put"]
    assert filled == [b"p/00000000", b"p/00000002"]
    assert client.calls[-1] == ("delete", {"key": None, "prefix": "p/"})
    assert not client.stored()


def process(job: Job) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "paxos_rsm.cli.load", job.to_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=own_environment(),
    )


def test_a_process_says_why_it_failed() -> None:
    done = process(replace(JOB, endpoints=("127.0.0.1:1",)))
    out, error = done.communicate(timeout=60)
    said = json.loads(out)
    assert (said["event"], said["exit_code"], error) == ("failed", 2, b"")
    assert said["message"].startswith("no server could be reached")


def test_a_process_ends_with_its_parent() -> None:
    done = process(replace(JOB, endpoints=("127.0.0.1:1",), dial_timeout_s=600, command_timeout_s=0.1))
    assert done.stdin is not None
    done.stdin.close()
    assert done.wait(60) == 0
