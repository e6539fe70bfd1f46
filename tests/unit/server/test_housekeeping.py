"""What is done to a store that nobody asks for."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from paxos_rsm.codec.kv import encode_command
from paxos_rsm.errors import ResourceExhausted
from paxos_rsm.machines.kv.autocompaction import AutoCompaction, CompactionMode
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, DeleteRange, Put
from paxos_rsm.server.housekeeping import QUOTA_LEVEL, TIDY_RECORDS, Housekeeping
from paxos_rsm.server.own_sessions import OwnSessions
from tests.unit.server.fakes import FakeReplica

LOOK_S = 0.005
WAIT_S = 20.0


class Stage:
    def __init__(
        self, *, quota_bytes: int = 0, compaction: AutoCompaction | None = None, look_s: float = LOOK_S
    ) -> None:
        self.replica = FakeReplica()
        machine = self.replica.kv
        assert isinstance(machine, KeyValueMachine)
        self.machine = machine
        self.level = QUOTA_LEVEL
        self.own = OwnSessions(self.replica, frame_bytes_max=60_000, in_flight_max=100, session_count=1)
        self.keeper = Housekeeping(
            self.replica,
            machine,
            self.own,
            quota_bytes=quota_bytes,
            compaction=compaction,
            least_level=lambda: self.level,
            look_s=look_s,
        )
        self.keeper.start()

    async def looks(self) -> None:
        """Some time, in which it has looked several times."""
        await asyncio.sleep(10 * LOOK_S)

    @property
    def commands(self) -> int:
        return sum(count for _, _, count in self.replica.submitted)

    def end(self) -> None:
        self.keeper.stop()
        self.own.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.002)


async def test_the_leader_sets_the_quota_once() -> None:
    stage = Stage(quota_bytes=5_000)
    await until(lambda: stage.machine.quota_bytes == 5_000)
    await stage.looks()
    assert stage.commands == 1
    stage.end()


async def test_a_quota_is_not_put_off_until_the_next_look() -> None:
    stage = Stage(quota_bytes=5_000, look_s=10 * WAIT_S)
    stage.replica.role = "follower"
    await stage.looks()
    stage.replica.role = "leader"
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.end()


async def test_a_quota_that_was_taken_out_of_the_settings_is_taken_out_of_the_state() -> None:
    stage = Stage(quota_bytes=5_000)
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.keeper._quota_bytes = 0
    await until(lambda: stage.machine.quota_bytes == 0)
    stage.end()


async def test_a_state_that_comes_to_its_quota_is_told_by_every_server_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    stage = Stage(quota_bytes=600)
    await until(lambda: stage.machine.quota_bytes == 600)
    stage.replica.role = "follower"
    for key in (b"a", b"b"):
        await stage.own.submit(encode_command(Put(key, b"v" * 100)))
    await until(lambda: "the state has come to its quota" in caplog.text)
    await stage.looks()
    assert caplog.text.count("come to its quota") == 1
    await stage.own.submit(encode_command(DeleteRange(b"a")))
    await stage.own.submit(encode_command(Compact(4)))
    await until(lambda: "below its quota again" in caplog.text)
    stage.end()


async def test_nobody_else_sets_it() -> None:
    stage = Stage(quota_bytes=5_000)
    stage.replica.role = "follower"
    await stage.looks()
    assert stage.commands == 0
    stage.replica.role = "leader"
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.end()


async def test_a_member_that_may_not_know_the_command_is_waited_for() -> None:
    stage = Stage(quota_bytes=5_000)
    stage.level = 0
    await stage.looks()
    assert stage.commands == 0
    stage.level = QUOTA_LEVEL + 1
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.end()


async def test_while_the_log_does_not_answer_nothing_more_is_proposed() -> None:
    stage = Stage(quota_bytes=5_000)
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.replica.hold()
    stage.keeper._quota_bytes = 6_000
    await stage.looks()
    assert stage.commands == 2
    stage.replica.release()
    await until(lambda: stage.machine.quota_bytes == 6_000)
    assert stage.commands == 2
    stage.end()


async def test_what_is_refused_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(quota_bytes=5_000)
    submit = stage.own.submit

    def refuse(command: bytes) -> None:
        raise ResourceExhausted("too many")

    monkeypatch.setattr(stage.own, "submit", refuse)
    await stage.looks()
    monkeypatch.setattr(stage.own, "submit", submit)
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.end()


async def test_the_leader_compacts_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stage = Stage(compaction=AutoCompaction(CompactionMode.PERIODIC, 50))
    for number in range(10):
        stage.machine.execute(Put(b"k", b"%d" % number))
    await until(lambda: stage.machine.compacted_revision == 11)
    assert "compacted by itself" in [record.message for record in caplog.records]
    await stage.looks()
    assert stage.commands == 1, "there is nothing new to compact"
    stage.end()


async def test_who_leads_no_more_forgets_what_it_saw() -> None:
    stage = Stage(compaction=AutoCompaction(CompactionMode.PERIODIC, 60))
    forgotten: list[bool] = []
    compaction = stage.keeper._compaction
    assert compaction is not None
    compaction.forget = lambda: forgotten.append(True)  # type: ignore[method-assign]
    await stage.looks()
    assert not forgotten
    stage.replica.role = "follower"
    await until(lambda: bool(forgotten))
    assert stage.machine.compacted_revision == -1
    stage.end()


async def test_an_idle_server_drops_what_was_compacted() -> None:
    stage = Stage()
    stage.replica.role = "follower"
    for number in range(12 * TIDY_RECORDS):
        stage.machine.execute(Put(b"k%d" % (number % 7), b"v"))
    stage.machine.execute(Compact(stage.machine.revision))
    assert stage.machine._store.is_untidy
    await until(lambda: not stage.machine._store.is_untidy)
    stage.end()


async def test_nothing_is_done_while_the_state_is_replaced_nor_after_the_end() -> None:
    stage = Stage(quota_bytes=5_000)
    for watcher in stage.replica.install_watchers:
        watcher(True)
    await stage.looks()
    assert stage.commands == 0
    for watcher in stage.replica.install_watchers:
        watcher(False)
    await until(lambda: stage.machine.quota_bytes == 5_000)
    stage.keeper.stop()
    stage.keeper._quota_bytes = 7_000
    await stage.looks()
    assert stage.machine.quota_bytes == 5_000
    stage.end()
