"""Every clause of the contract is broken by some machine, found, and named; and one that keeps it is left in peace."""

from collections.abc import Callable
from contextlib import nullcontext
from random import Random

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import Position, StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.sim.workload import KvWorkload
from paxos_rsm.testing.contract import ADVICE, Breach, Case, Command, Contract, bad_input, fewest, short
from tests.unit.testing import broken_machines as broken

DRAWN = 120


def drawn(seed: int = 0) -> Case:
    """Commands that add and take, two to a slot."""
    rnd, names = Random(seed), broken.Names()
    commands = [
        Command(Position(1 + number // 2, number % 2), names.command(rnd, 1, number))
        for number in range(DRAWN)
    ]
    return Case(commands, [b"x", b"y", b"unknown"])


BREACHES: list[tuple[Callable[[], StateMachine], str]] = [
    (broken.ForgetsOrder, "a restored machine is another"),
    (broken.RaisesOnBadInput, "apply raised"),
    (broken.RaisesAtOnce, "apply raised"),
    (broken.AsksTheDate, "depends on the clock"),
    (broken.AsksTheTime, "not deterministic"),
    (broken.DrawsLots, "not deterministic"),
    (broken.UsesIdentity, "not deterministic"),
    (broken.SharesClassAttribute, "machines share state"),
    (broken.SharesDefault, "machines share state"),
    (broken.SharesGlobal, "machines share state"),
    (broken.QueryChanges, "query changed the state"),
    (broken.QueryRaises, "query raised"),
    (broken.ResultIsText, "a result is not bytes"),
    (broken.ResultIsNone, "a result is not bytes"),
    (broken.QueryIsNumber, "a result is not bytes"),
    (broken.DigestOfOrder, "a restored machine is another"),
    (broken.DigestOfCounter, "digest is not stable"),
    (broken.DigestTellsNothing, "digest tells nothing"),
    (broken.SnapshotLosesState, "a restored machine is another"),
    (broken.SnapshotOfLiveState, "snapshot is no view"),
    (broken.SnapshotForgetsEmpty, "a restored machine is another"),
    (broken.SnapshotClears, "snapshot changed the state"),
    (broken.RestoreMerges, "restore does not replace"),
    (broken.RestoreRaises, "restore raised"),
    (broken.SlicesOfText, "a result is not bytes"),
    (broken.SnapshotRaises, "snapshot raised"),
    (broken.BatchDiffers, "apply_batch is not apply"),
    (broken.BatchTooShort, "apply_batch is not apply"),
]


def run(make: Callable[[], StateMachine]) -> Contract:
    contract = Contract(make)
    for seed in range(3):
        contract.check(drawn(seed), seed)
    contract.check_digests()
    return contract


@pytest.mark.parametrize(("make", "check"), BREACHES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_machine_is_found_and_named(make: Callable[[], StateMachine], check: str) -> None:
    with pytest.raises(Breach) as found:
        run(make)
    assert found.value.check == check
    assert found.value.advice == ADVICE[check]
    assert found.value.told


def test_every_clause_has_its_broken_machine() -> None:
    assert set(ADVICE) == {check for _, check in BREACHES}


@pytest.mark.parametrize("make", [broken.Right, broken.RightInBatches, broken.SnapshotByGenerator])
def test_a_right_machine_is_left_in_peace(make: Callable[[], StateMachine]) -> None:
    contract = run(make)
    assert contract.counts["commands checked alone"] == 3 * DRAWN
    assert contract.counts["snapshots restored"] >= 40
    assert contract.counts["queries"] >= 40
    assert contract.counts["bad inputs"] >= 60
    assert contract.shared() == []


def test_the_key_value_store_keeps_the_contract() -> None:
    workload, rnd = KvWorkload(), Random(1)
    commands = [Command(Position(n + 2, 0), workload.command(rnd, 1, n)) for n in range(300)]
    contract = Contract(lambda: KeyValueMachine(KvCodec()))
    results, digests = contract.check(Case(commands, [workload.query(rnd) for _ in range(8)]))
    assert len(results) == len(digests) == 300
    contract.check_digests()


def test_what_is_shared_is_named() -> None:
    with pytest.raises(Breach, match=r"the class attribute SharesClassAttribute\.taken changed"):
        run(broken.SharesClassAttribute)
    with pytest.raises(Breach, match=r"the global TICKETS of .*broken_machines changed"):
        run(broken.SharesGlobal)


def test_where_the_machine_raised_is_told() -> None:
    with pytest.raises(
        Breach, match=r"KeyError: 'nobody' \(broken_machines\.py, line \d+\) on the command b'take"
    ):
        run(broken.RaisesAtOnce)


def test_the_clock_is_told_from_chance_by_the_day() -> None:
    case = drawn()
    Contract(broken.AsksTheDate, nullcontext).check(case)  # today, it is right
    with pytest.raises(Breach, match="depends on the clock"):
        Contract(broken.AsksTheDate).check(case)


def test_the_commands_become_few() -> None:
    contract, case = Contract(broken.SnapshotLosesState), drawn()
    with pytest.raises(Breach) as found:
        contract.check(case)
    fewer, again = contract.fewest(case, 0, found.value)
    assert again.check == found.value.check
    assert again.during == found.value.during
    assert len(fewer.commands) == 2
    with pytest.raises(Breach):
        contract.check(fewer)


def test_fewest_leaves_only_what_is_needed() -> None:
    commands = [Command(Position(n, 0), b"%d" % n) for n in range(100)]
    kept = fewest(commands, lambda left: {commands[17], commands[61]} <= set(left))
    assert kept == [commands[17], commands[61]]
    assert fewest(commands, lambda left: True) == []
    assert fewest([], lambda left: True) == []


def test_bad_input_is_made_of_good() -> None:
    commands = [Command(Position(1, 0), b"add x anna")]
    found = bad_input(Random(1), commands)
    assert b"" in found
    assert b"add x annaadd x anna" in found
    assert found == bad_input(Random(1), commands)
    assert bad_input(Random(1), [])


def test_a_machine_without_commands_is_checked_for_bad_input() -> None:
    with pytest.raises(Breach, match="apply raised"):
        Contract(broken.RaisesOnBadInput).check(Case([]))


def test_what_is_shown_is_short() -> None:
    assert short(b"x") == "b'x'"
    assert len(short(b"x" * 1_000)) <= 120
