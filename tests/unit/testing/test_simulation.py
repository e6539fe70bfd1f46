"""``simulate``: a right machine passes, a wrong one fails with everything that its author needs."""

import itertools
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.counter import Counter
from paxos_rsm.checker import models
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.errors import ConfigError, PaxosRsmError
from paxos_rsm.machines.base import Position, SimpleMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.sim.workload import KvWorkload
from paxos_rsm.testing import SimulationFailed, simulate
from tests.unit.testing import broken_machines as broken

EVENTS = 300


class Numbers:
    """Adds to a counter, and checks what clients saw against the model of one."""

    model: Any = models.Counter

    def command(self, rnd: Random, client: int, number: int) -> bytes:
        return b"%d" % rnd.randint(-9, 9)

    def query(self, rnd: Random) -> bytes:
        return b""

    def operation(self, request: bytes, result: bytes | None, is_query: bool) -> tuple[str, Any, Any, Any]:
        output = None if result is None else int(result)
        return ("get", None, None, output) if is_query else ("add", None, int(request), output)


class StaleQueries(Counter):
    """Every query is answered from one command ago."""

    def __init__(self) -> None:
        super().__init__()
        self.before = 0

    def apply(self, command: bytes, at: Position) -> bytes:
        self.before = self.total
        return super().apply(command, at)

    def query(self, request: bytes) -> bytes:
        return b"%d" % self.before

    def dump(self) -> bytes:
        return b"%d %d" % (self.total, self.before)

    def load(self, state: bytes) -> None:
        self.total, self.before = map(int, state.split())


def failure(make: Any, workload: Any = broken.Names, **more: Any) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(make, workload, **{"seeds": 1, "events": EVENTS, "hash_seeds": (), **more})
    return failed.value


def test_the_counter_of_the_examples_passes() -> None:
    report = simulate(Counter, Numbers, seeds=3, hash_seeds=(0, 1))
    assert report.seeds == 3
    assert report.counts["commands"] > 20
    assert report.counts["operations found linearizable"] > 20
    assert report.counts["snapshots restored"] > 20
    assert "examples.counter:Counter: 3 seeds" in str(report)
    assert "PYTHONHASHSEED 0, 1" in str(report)


def test_the_key_value_store_passes() -> None:
    class Kv:
        def __init__(self) -> None:
            self._workload = KvWorkload()

        def command(self, rnd: Random, client: int, number: int) -> bytes:
            return self._workload.command(rnd, client, number)

        def query(self, rnd: Random) -> bytes:
            return self._workload.query(rnd)

    report = simulate(lambda: KeyValueMachine(KvCodec()), Kv, seeds=2, events=EVENTS, hash_seeds=())
    assert report.counts["commands checked alone"] > 200


def test_commands_may_be_large() -> None:
    """Some worlds of our own have entries of 300 bytes; a user's command of 2,000 is no fault of the user's machine."""

    def draw(rnd: Random) -> bytes:
        return b"%d" % rnd.randint(0, 9) + b" " * 2_000

    assert simulate(Counter, draw, seeds=6, events=400, hash_seeds=()).seeds == 6


def test_the_same_seed_is_the_same_run() -> None:
    def hashes(seeds: Any) -> dict[int, str]:
        report = simulate(broken.Right, broken.Names(), seeds=seeds, events=EVENTS, hash_seeds=())
        return report.trace_hashes

    both = hashes(2)
    assert list(both) == [0, 1]
    assert hashes([1]) == {1: both[1]}
    assert both[0] != both[1]


def test_a_failure_says_everything(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    failed = failure(broken.SnapshotForgetsEmpty, changes={"servers": 3}, trace=trace)
    assert isinstance(failed, PaxosRsmError)
    assert failed.check == "a restored machine is another"
    assert failed.seed == 0
    assert failed.at is not None
    assert len(failed.commands) == 2
    message = str(failed)
    assert message.startswith(
        f"{broken.__name__}:SnapshotForgetsEmpty fails with seed 0: a restored machine is"
    )
    for part in (
        "what broke:  the digest is",
        "what to do:  put everything",
        "shown by:    b'add",
        "paxos_rsm 0.",
    ):
        assert part in message
    call = (
        "simulate(SnapshotForgetsEmpty, Names, seeds=[0], events=300, changes={'servers': 3}, hash_seeds=(), "
    )
    assert call + 'trace="seed0.txt")' in message
    assert " applies " in message.splitlines()[-1]
    assert trace.read_text().splitlines() == failed.trace


def test_the_trace_has_more_than_the_message() -> None:
    failed = failure(broken.ResultIsNone, changes={"servers": 3})
    assert any(" n2 hears n1" in line for line in failed.trace)
    assert " hears " not in str(failed)
    assert any(" starts, boot 1" in line for line in failed.trace)


def test_what_only_the_simulation_shows_is_told_as_it_saw_it() -> None:
    failed = failure(broken.TakesAndKeeps, broken.Objects)
    assert failed.check == "the workload objects"
    assert "nobody had added it" in failed.told or "it has" in failed.told


def test_what_the_replicas_show_and_no_other_machine_is_told_with_their_names() -> None:
    made = itertools.count(1)

    def make() -> SimpleMachine:
        """The second machine of the cluster is another; two are made before it, to be looked at."""
        return broken.SnapshotLosesState() if next(made) == 4 else broken.Right()

    calm = {"servers": 3, "crash": 0.0, "kill": 0.0, "blackout": 0.0, "restored": False}
    failed = failure(make, changes=calm)
    assert failed.check == "the simulation failed"
    assert re.search(r"\bn[123] got ", failed.told)
    assert "replicas executed the same commands and do not agree" in str(failed)


def test_shared_state_is_named() -> None:
    failed = failure(broken.SharesClassAttribute)
    assert failed.check == "machines share state"
    assert "the class attribute SharesClassAttribute.taken" in failed.told


def test_a_machine_that_disagrees_with_its_model_fails() -> None:
    failed = failure(
        StaleQueries, Numbers, seeds=20, changes={"reads": 0.6, "in_flight_max": 1, "clients": 2}
    )
    assert failed.check == "violation (the model)"
    assert "get() → " in failed.told


def test_a_set_in_the_order_of_its_hashes_is_found_in_other_processes() -> None:
    simulate(broken.HashOrder, broken.Names, seeds=1, events=EVENTS, hash_seeds=())  # here nobody could tell
    failed = failure(broken.HashOrder, hash_seeds=(3, 4))
    assert failed.check == "depends on PYTHONHASHSEED"
    assert "with PYTHONHASHSEED=" in failed.told
    *added, taken = failed.commands
    assert taken.startswith(b"take ")
    assert 2 <= len(added) <= 10


def test_what_a_restored_machine_shows_is_named_by_its_cause() -> None:
    failed = failure(broken.DigestOfSetOrder, hash_seeds=(3,))
    assert failed.check == "depends on PYTHONHASHSEED"


def test_a_workload_that_cannot_be_repeated_is_found() -> None:
    failed = failure(broken.Right, broken.DrawsFromSet, hash_seeds=(4, 5))
    assert failed.check == "the workload is not deterministic"
    assert "the same seed came to the command b'add x " in failed.told


def test_what_cannot_be_compared_is_refused_at_once() -> None:
    class Local(broken.Right):
        pass

    with pytest.raises(ConfigError, match="the machine cannot be run under another PYTHONHASHSEED"):
        simulate(Local, broken.Names)
    with pytest.raises(ConfigError, match="the workload cannot be run under another PYTHONHASHSEED"):
        simulate(broken.Right, broken.Names())


def test_what_is_no_machine_is_refused() -> None:
    class NeedsArguments(SimpleMachine):
        def __init__(self, size: int) -> None: ...

    class NoMachine:
        pass

    for wrong, why in (
        (NeedsArguments, "a machine is made without arguments"),
        (NoMachine, "is no state machine"),
    ):
        with pytest.raises(ConfigError, match=why):
            simulate(wrong, broken.Names, hash_seeds=())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no seed to play"):
        simulate(broken.Right, broken.Names, seeds=0, hash_seeds=())


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"seeds": 1.5}, r"seeds is 1\.5; give a number of seeds"),
        ({"seeds": "7"}, "seeds is '7'; give a number of seeds"),
        ({"seeds": True}, "seeds is True; give a number of seeds"),
        ({"seeds": -1}, "there is no seed to play"),
        ({"seeds": []}, "there is no seed to play"),
        ({"seeds": [1, -1]}, "the seed -1 is none: a seed is a whole number from 0 on"),
        ({"seeds": ["1"]}, "the seed '1' is none"),
        ({"seeds": [False]}, "the seed False is none"),
        ({"events": "x"}, "events is 'x'; give how many"),
        ({"events": -1}, "events is -1; give how many each seed is to have, at least 1"),
        ({"events": True}, "events is True; give how many"),
        ({"hash_seeds": 5}, "hash_seeds is 5; give values of PYTHONHASHSEED"),
        ({"hash_seeds": "01"}, "hash_seeds is '01'; give values of PYTHONHASHSEED"),
        ({"hash_seeds": (-1,)}, "hash_seeds has -1; PYTHONHASHSEED is a whole number from 0 to 4294967295"),
        ({"hash_seeds": (1 << 32,)}, "hash_seeds has 4294967296; PYTHONHASHSEED"),
        ({"changes": 5}, "changes is 5; give names and values"),
        ({"changes": {"crash": 2}}, "crash of the world of a simulation is 2; it must be from 0 to 1"),
        ({"trace": 5}, "trace is 5; give the path of a file"),
        ({"trace": "/nonexistent/x"}, "there is no directory /nonexistent; make it first"),
        ({"trace": "/"}, "that is a directory; name a file in it"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(argument: dict[str, Any], says: str) -> None:
    made: list[broken.Right] = []

    def machine() -> broken.Right:
        made.append(broken.Right())
        return made[-1]

    with pytest.raises(ConfigError, match=says):
        simulate(machine, broken.Names, **{"seeds": 1, "events": EVENTS, "hash_seeds": (), **argument})
    assert not made or "changes" in argument


def test_a_trace_that_cannot_be_written_does_not_lose_what_was_found(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()

    class TakesAwayItsPlace(broken.SnapshotForgetsEmpty):
        def __init__(self) -> None:
            super().__init__()
            if place.exists():
                place.rmdir()

    failed = failure(TakesAwayItsPlace, changes={"servers": 3}, trace=place / "trace.txt")
    assert failed.check == "a restored machine is another"
    assert failed.trace
    assert f"the trace could not be written to {place / 'trace.txt'}: No such file" in str(failed)


def test_a_new_machine_that_is_wrong_needs_no_seed() -> None:
    failed = failure(broken.DigestOfCounter)
    assert failed.seed is None
    assert failed.trace == []
    assert "repeat it" not in str(failed)


def test_a_digest_that_tells_nothing_is_found_at_the_end() -> None:
    assert failure(broken.DigestTellsNothing).check == "digest tells nothing"
