"""A server whose state is not that of the others finds out, and takes theirs."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from paxos_rsm.errors import MachineFailed, Unavailable
from paxos_rsm.paxos.messages import StateDigest
from paxos_rsm.replica.comparison import Difference, Verdict
from paxos_rsm.replica.loop import ReplicaLoop
from tests.unit.replica.harness import Journal, Servers
from tests.unit.replica.test_loop import stop, until
from tests.unit.replica.test_snapshots import build, keeper_of, started, write


def load(servers: Servers, number: int, commands: int) -> None:
    """So many slots with a command each."""
    client = servers.open(number)
    for seq in range(1, commands + 1):
        client.submit(seq, b"%d" % seq)
    servers.run(2)


def stage(count: int = 3) -> tuple[Servers, int]:
    servers = Servers(count, compare_ticks=4)
    leader = servers.elect()
    load(servers, leader, 70)
    servers.run(8)
    assert servers[leader].machine.digests()
    return servers, leader


def verdicts(servers: Servers) -> dict[int, list[Verdict]]:
    return {number: [each.verdict for each in servers[number].differences] for number in servers.servers}


def test_states_that_are_equal_are_compared_and_nothing_comes_of_it() -> None:
    servers, leader = stage()
    load(servers, leader, 130)
    servers.run(40)
    assert all(servers[n].comparison.standing.verdict is Verdict.EQUAL for n in servers.servers)
    assert not any(verdicts(servers).values())
    assert not any(servers[number].divergent for number in servers.servers)


def test_a_server_whose_state_went_wrong_takes_anothers() -> None:
    for wrong in (1, 2, 3):
        servers, leader = stage()
        servers.servers[wrong].journal.commands.insert(0, b"never said")
        before = servers[wrong].node.acceptor.promised
        load(servers, leader, 70)
        servers.run(10)
        others = sorted(set(servers.servers) - {wrong})
        (found,) = servers[wrong].differences
        assert (found.verdict, found.others) == (Verdict.MINORITY, tuple(others))
        assert (found.first, found.agreed) == (128, 64)
        assert servers[wrong].node.acceptor.promised >= before
        assert any(Verdict.MAJORITY in verdicts(servers)[other] for other in others)
        # Somebody leads, and it gets a snapshot: nothing that was applied is taken back.
        for _ in range(20):
            for other in others:
                if servers[other].snapshot_is_due:
                    servers.servers[other].take_snapshot()
            servers.run(8)
        assert not servers[wrong].node.log.held
        load(servers, servers.elect(), 70)
        servers.run(20)
        journals = [servers.journal(number) for number in servers.servers]
        assert journals[0] == journals[1] == journals[2]
        assert b"never said" not in journals[0]
        assert not any(servers[number].divergent for number in servers.servers)
        assert [each.verdict for each in servers[others[0]].differences][-1] is Verdict.EQUAL


def test_one_of_two_is_not_told_who_is_right_and_neither_gives_way() -> None:
    servers, leader = stage(2)
    servers.servers[2].journal.commands.insert(0, b"never said")
    load(servers, leader, 70)
    servers.run(60)
    assert verdicts(servers) == {1: [Verdict.UNDECIDED], 2: [Verdict.UNDECIDED]}
    assert not any(servers[number].node.log.held for number in servers.servers)
    assert servers[1].divergent == servers[2].divergent == {1, 2}


def test_a_majority_that_says_nothing_makes_no_minority() -> None:
    servers, leader = stage()
    servers.lossy = {StateDigest}
    servers.servers[leader].journal.commands.insert(0, b"never said")
    load(servers, leader, 70)
    servers.run(60)
    assert not any(verdicts(servers).values())


def test_a_server_that_is_wrong_and_behind_waits_for_the_snapshot_that_is_coming() -> None:
    servers, leader = stage()
    wrong = next(number for number in servers.servers if number != leader)
    servers.servers[wrong].journal.commands.insert(0, b"never said")
    servers[wrong].transfer.want(leader, 1 << 40)
    load(servers, leader, 70)
    servers.run(10)
    assert not servers[wrong].node.log.held


def test_a_server_whose_rebuilders_are_members_no_more_takes_the_state_of_whoever_there_is() -> None:
    servers, leader = stage()
    wrong = next(number for number in servers.servers if number != leader)
    servers.servers[wrong].journal.commands.insert(0, b"never said")
    load(servers, leader, 70)
    servers.run(6)
    replica: Any = servers[wrong]
    assert replica._rebuild_from
    # They have been replaced since, and nothing says so to one that applies nothing.
    replica._rebuild_from = (98, 99)
    for _ in range(30):
        for number in servers.servers:
            if servers[number].snapshot_is_due:
                servers.servers[number].take_snapshot()
        servers.run(8)
    assert not servers[wrong].node.log.held
    assert b"never said" not in servers.journal(wrong)


def test_a_rebuilder_that_does_not_answer_is_left_for_the_next() -> None:
    servers, leader = stage()
    replica: Any = servers[leader]
    replica._rebuild_from = tuple(number for number in servers.servers if number != leader)
    asked = []
    for _ in range(4):
        replica._fetch_state()
        asked.append(replica.transfer._fetch.peer)
        replica.transfer.finished()
    assert asked == [*replica._rebuild_from] * 2 or asked == [*reversed(replica._rebuild_from)] * 2


# ---- running loops -------------------------------------------------------------------------------------------


def journal_of(loop: ReplicaLoop) -> Journal:
    machine: Any = loop.replica.machine
    journal: Journal = machine._machine
    return journal


def slowly(work: Callable[..., Awaitable[Any]], seen: list[str], query: Callable[[bytes], bytes]) -> Any:
    """The same, asked in the middle of it what the server answers."""

    async def asked(*arguments: Any) -> Any:
        try:
            query(b"")
        except Unavailable as error:
            seen.append(str(error))
        return await work(*arguments)

    return asked


async def test_a_wrong_state_is_found_named_and_rebuilt_and_asked_by_nobody_meanwhile(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    _, leader, others = await started(compare_ticks=5)
    wrong, right = others
    await write(leader, 70)
    await until(lambda: wrong.applied_slot == leader.applied_slot)
    assert await keeper_of(wrong).take() is not None
    journal_of(wrong).commands.insert(0, b"never said")
    said: list[bool] = []
    wrong.watch_install(said.append)
    seen: list[str] = []
    keeper: Any = keeper_of(wrong)
    monkeypatch.setattr(keeper, "_install", slowly(keeper._install, seen, wrong.query))
    await write(leader, 70)
    await until(lambda: said == [True, False])
    assert seen == ["this server is replacing its state by a snapshot; retry, or at another server"]
    await write(leader, 70)
    await until(lambda: len({loop.applied_slot for loop in (leader, *others)}) == 1)
    assert journal_of(wrong).commands == journal_of(leader).commands
    assert b"never said" not in journal_of(wrong).commands
    await until(lambda: not any(loop.status().divergent for loop in (leader, *others)))
    (sentence,) = {each.message for each in caplog.records if "is not that of a majority" in each.message}
    names = sorted(f"n{loop.replica.node.me}" for loop in (leader, right))
    assert f"is not that of a majority, {names[0]} and {names[1]}: slot 128" in sentence
    assert "the same at slot 64" in sentence
    assert any(f"the state of n{wrong.replica.node.me} is not" in each.message for each in caplog.records)
    newest = keeper._store.newest()
    assert [info.slot for info in keeper._store.infos()] == [newest.slot], "the old ones are put aside"
    await stop(leader, *others)


async def test_a_server_that_starts_without_its_state_is_asked_by_nobody_before_it_has_one() -> None:
    hub, leader, others = await started()
    await write(leader, 5)
    late = build(hub, 4)
    late.replica.node.hold(
        True
    )  # as where the rebuilding was cut short: the log is there, the snapshots are put aside
    said: list[bool] = []
    late.watch_install(said.append)
    await late.start()
    with pytest.raises(Unavailable, match="retry, or at another server"):
        late.query(b"")
    assert said == [True]
    await stop(late, leader, *others)


async def test_a_state_that_goes_wrong_again_and_again_stops_the_server() -> None:
    _, leader, others = await started()
    wrong = others[0]
    for times in range(1, 4):
        wrong.replica.differences.append(Difference(Verdict.MINORITY, (2, 3), 64, 0))
        await until(lambda: not wrong.replica.differences)
        assert not wrong.failed.done(), times
    wrong.replica.differences.append(Difference(Verdict.MINORITY, (2, 3), 64, 0))
    await until(wrong.failed.done)
    with pytest.raises(MachineFailed, match=r"4 times .* not to be trusted"):
        wrong.failed.result()
    await stop(leader, *others)
