"""The demonstration over stand-ins, so that each of its claims can be made false."""

import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from paxos_rsm.cli import demo
from paxos_rsm.cli.cluster import EndedBySignal
from paxos_rsm.cli.demo import Acknowledgements, Story, Writer, longest_gap_s, run_demo
from paxos_rsm.cli.failures import Failure
from paxos_rsm.errors import Unavailable, UnknownOutcome
from paxos_rsm.testing import LocalCluster, LocalClusterError
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import run


class FakeServer:
    """A server that only notes what is done to it."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self._done = name, done
        self.endpoint, self.pid = f"{name}:2379", 100 + int(name[1:])

    def kill(self) -> None:
        self._done.append(f"kill {self.name}")

    def start(self) -> None:
        self._done.append(f"start {self.name}")


class FakeCluster:
    """Three servers that agree at once; n2 leads until it is killed."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.directory = "somewhere"
        self.servers = {name: FakeServer(name, self.done) for name in ("n1", "n2", "n3")}
        self.digests = dict.fromkeys(self.servers, b"\xab")

    names = property(lambda self: list(self.servers))
    endpoints = property(lambda self: [server.endpoint for server in self])

    def __getitem__(self, name: str) -> FakeServer:
        return self.servers[name]

    def __iter__(self) -> Iterator[FakeServer]:
        return iter(self.servers.values())

    def __len__(self) -> int:
        return 3

    def start(self, timeout_s: float) -> None:
        self.done.append("start")

    def keep_directory(self) -> None:
        self.done.append("keep")

    def close(self) -> None:
        self.done.append("close")

    def leader(self, *, everyone: bool = False) -> str:
        return "n3" if "kill n2" in self.done else "n2"

    def wait_for_leader(self, timeout_s: float) -> str:
        return self.leader()

    def wait_until(self, condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
        found = condition()
        if not found:
            raise LocalClusterError(f"no {what} within {timeout_s:g} s\n  n1| its log")
        return found

    def statuses(self, *, digest: bool = False) -> dict[str, Any]:
        return {name: SimpleNamespace(applied_slot=9, digest=found) for name, found in self.digests.items()}


@pytest.fixture
def cluster(client: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(demo, "WRITES_BEFORE", 60)
    monkeypatch.setattr(demo, "WRITES_PER_S", 2000)
    monkeypatch.setattr(demo, "STEP_TIMEOUT_S", 5.0)
    return FakeCluster()


def told(cluster: FakeCluster) -> str:
    output = io.StringIO()
    run_demo(Story(Console(file=output, width=200)), cast(LocalCluster, cluster))
    return output.getvalue()


def test_the_whole_story(cluster: FakeCluster, client: type[FakeClient]) -> None:
    output = told(cluster)
    assert cluster.done == ["start", "kill n2", "start n2"]
    assert "n2:2379  process 102 leads" in output
    assert "kill -9 102: n2, the leader, is gone" in output
    assert "n3 leads; the longest time without an acknowledged write was" in output
    assert "n1  applied slot 9  digest ab" in output
    written = [arguments["key"] for what, arguments in client.calls if what == "put"]
    assert len(written) - 1 >= 180
    assert f"{len(written) - 1} of {len(written) - 1} are there, each executed once" in output
    read_through = [arguments["endpoints"] for what, arguments in client.calls if what == "client"]
    assert read_through == [("n1:2379",), ("n3:2379",), ("n1:2379", "n2:2379", "n3:2379"), ("n2:2379",)]


def test_a_lost_write_is_found(
    cluster: FakeCluster, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget() -> None:
        client.forget(demo.key_of(7))

    monkeypatch.setattr(cluster["n2"], "start", forget)
    with pytest.raises(Failure, match="acknowledged write 7 was lost: its key is not there"):
        told(cluster)


def test_a_write_that_was_executed_twice_is_found(
    cluster: FakeCluster, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put_twice(self: FakeClient, key: bytes, value: bytes) -> Any:
        await original(self, key, value)
        return await original(self, key, value)

    original = client.put
    monkeypatch.setattr(client, "put", put_twice)
    with pytest.raises(Failure, match="write 0 was executed 2 times"):
        told(cluster)


def test_a_stale_read_is_found(
    cluster: FakeCluster, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stale(self: FakeClient, key: bytes, **options: Any) -> Any:
        return SimpleNamespace(value=None)

    monkeypatch.setattr(client, "get", stale)
    with pytest.raises(Failure, match="n3 read None, not what was written through n1"):
        told(cluster)


def test_states_that_differ_are_found(cluster: FakeCluster) -> None:
    cluster.digests["n3"] = b"\xac"
    with pytest.raises(LocalClusterError, match="no equal states"):
        told(cluster)


def test_a_server_that_does_not_answer_has_not_the_same_state(cluster: FakeCluster) -> None:
    del cluster.digests["n3"]
    with pytest.raises(LocalClusterError, match="no equal states"):
        told(cluster)


def test_no_acknowledgement_after_the_kill_is_found(
    cluster: FakeCluster, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        client.failure = UnknownOutcome("nobody answers")

    monkeypatch.setattr(demo, "STEP_TIMEOUT_S", 0.3)
    monkeypatch.setattr(cluster["n2"], "kill", kill)
    with pytest.raises(Failure, match=r"too few writes were acknowledged within 0\.3 s \(nobody answers\)"):
        told(cluster)


def test_what_is_not_acknowledged_is_not_claimed(client: type[FakeClient]) -> None:
    client.failure = Unavailable("no leader")
    writer = Writer(["a:1"])
    writer.start()
    while not writer.acknowledged.unknown:
        pass
    acknowledged = writer.finish()
    assert len(acknowledged) == 0
    assert acknowledged.first_error == "no leader"


def test_a_writer_that_breaks_is_told_of(client: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: FakeClient, key: bytes, value: bytes) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(client, "put", broken)
    writer = Writer(["a:1"])
    writer.start()
    with pytest.raises(Failure, match="the writer failed: 'x'"):
        writer.wait_for(1)
    with pytest.raises(Failure, match="the writer failed: 'x'"):
        writer.finish()


def test_longest_gap() -> None:
    times = [1.0, 1.1, 1.2, 3.0, 3.1, 3.9]
    assert longest_gap_s(times, since=1.15) == pytest.approx(1.8)
    assert longest_gap_s(times, since=3.05) == pytest.approx(
        0.8
    )  # to the first after it, from the last before
    assert longest_gap_s(times, since=0.0) == pytest.approx(1.8)
    assert longest_gap_s(times, since=4.0) is None
    assert longest_gap_s([], since=0.0) is None


def test_acknowledgements_know_when() -> None:
    noted = Acknowledgements()
    for number in (3, 1):
        noted.note(number)
    assert (noted.numbers, len(noted)) == ([3, 1], 2)
    assert noted.times == sorted(noted.times)


def test_command_ends_with_0(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LocalCluster", lambda size: cluster)
    result = run("demo")
    assert result.exit_code == 0, result.stderr
    assert "nothing was lost; done in" in result.stdout
    assert cluster.done[-1] == "close"
    assert "keep" not in cluster.done


def test_command_that_fails_says_so_in_one_line_and_keeps_the_logs(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LocalCluster", lambda size: cluster)
    cluster.digests["n3"] = b"\xac"
    result = run("demo")
    assert result.exit_code == 1
    assert result.stderr == "Error: no equal states within 5 s: its log; the servers' logs are in somewhere\n"
    assert cluster.done[-2:] == ["keep", "close"]


def test_command_that_is_interrupted_leaves_nothing(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        raise EndedBySignal

    monkeypatch.setattr(demo, "LocalCluster", lambda size: cluster)
    monkeypatch.setattr(cluster["n2"], "kill", kill)
    result = run("demo")
    assert result.exit_code == 5
    assert result.stderr.strip() == "Error: interrupted"
    assert cluster.done[-1] == "close"
