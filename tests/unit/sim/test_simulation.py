"""A seed from the first boot to the check that all is well: the same every time, and told where it is not well."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.checker import Verdict
from paxos_rsm.errors import ConfigError, InvariantViolation, MachineFailed
from paxos_rsm.sim import simulation as simulation_module
from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.simulation import HEAL_ELECTIONS, PROBE_COMMANDS, Simulation, run_seed
from paxos_rsm.sim.weather import Weather
from paxos_rsm.sim.workload import KvWorkload
from paxos_rsm.sim.world import ELECTION_TICKS, FAULTS
from tests.unit.sim.helpers import formed, quiet

ROOT = Path(__file__).resolve().parents[3]

WORLDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"servers": 5, "loss": 0.1, "duplicate": 0.2, "late": 0.02, "streams_carry": True},
    {"servers": 3, "encoded": True, "crash": 0.02, "lazy": 0.4, "sleeps": 0.05},
)
HASHES = """
import sys
from paxos_rsm.sim import run_seed
from tests.unit.sim.test_simulation import WORLDS
for changes in WORLDS:
    for seed in range(1, 5):
        print(run_seed(seed, events=300, changes=changes).trace_hash)
"""


class TestTheSameEveryTime:
    @pytest.mark.parametrize("changes", WORLDS, ids=range(len(WORLDS)))
    @pytest.mark.parametrize("seed", [1, 2, 3, 4])
    def test_in_one_process(self, seed: int, changes: Mapping[str, Any]) -> None:
        one, again = (run_seed(seed, events=300, changes=changes) for _ in range(2))
        assert one.failure is None
        assert one == again

    def test_under_every_hash_seed(self) -> None:
        told = {}
        processes = {
            hash_seed: subprocess.Popen(
                [sys.executable, "-c", HASHES],
                env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for hash_seed in ("0", "1", "4711")
        }
        for hash_seed, process in processes.items():
            out, _ = process.communicate(timeout=100)
            assert process.returncode == 0
            told[hash_seed] = out.split()
        here = [run_seed(s, events=300, changes=c).trace_hash for c in WORLDS for s in range(1, 5)]
        assert told == dict.fromkeys(told, here)
        assert len(set(here)) == len(here)  # and no two seeds or worlds are alike

    def test_whether_it_is_told_or_not(self) -> None:
        silent, told = run_seed(3, events=500), run_seed(3, events=500, traced=True)
        assert (told.trace_hash, told.fired) == (silent.trace_hash, silent.fired)
        assert silent.trace == []
        assert any("the weather clears up" in line for line in told.trace)

    def test_the_beginning_does_not_depend_on_how_long_it_goes_on(self) -> None:
        world = quiet(3, crash=0.02, loss=0.1, fifo=False)
        short, long = (run_seed(3, events=n, changes=world, traced=True).trace for n in (600, 1200))
        clears = next(at for at, line in enumerate(short) if "the weather clears up" in line)
        assert clears > 50
        assert short[:clears] == long[:clears]


class TestGreen:
    def test_a_seed(self) -> None:
        result = run_seed(5, events=1000, changes=quiet(3, crash=0.02, loss=0.1))
        assert result.failure is None
        assert result.seed == 5
        assert result.events >= 1000
        for what in ("slots", "ballots", "commands answered", "reads answered"):
            assert result.fired[what] > 0, what
        assert 0 < result.healed_in_ticks <= HEAL_ELECTIONS * ELECTION_TICKS + 1

    def test_the_events_are_those_after_the_cluster_has_formed(self) -> None:
        for forms_first in (True, False):
            simulation = Simulation(3, events=400, changes=quiet(3, forms_first=forms_first), traced=True)
            result = simulation.run()
            assert result.failure is None
            clears = next(line for line in result.trace if "the weather clears up" in line)
            assert float(clears.split()[0]) > 5
            assert result.events >= 400

    @pytest.mark.parametrize("servers", range(1, 8))
    def test_a_cluster_of_any_size(self, servers: int) -> None:
        result = run_seed(servers, events=700, changes={"servers": servers})
        assert result.failure is None

    def test_without_any_fault_none_fires(self) -> None:
        result = run_seed(4, events=1000, changes=quiet(3))
        assert result.failure is None
        assert not [name for name in FAULTS if result.fired[name]]

    def test_all_stand_again_in_the_end(self) -> None:
        simulation = Simulation(6, events=800, changes=quiet(3, crash=0.05, partition=0.05))
        assert simulation.run().failure is None
        servers = simulation.servers.values()
        assert all(server.up for server in servers)
        assert len({server.replica.machine.applied_slot for server in servers}) == 1
        assert len({server.replica.machine.digest() for server in servers}) == 1
        assert not any(client.in_flight for client in simulation.clients)

    def test_a_client_at_every_server_writes_and_reads(self) -> None:
        simulation = Simulation(6, events=300, changes=quiet(3), history=True)
        assert simulation.run().failure is None
        assert simulation.history is not None
        for number in simulation.servers:
            probe = [asked for asked in simulation.history if asked.client == 100 + number]
            assert len([asked for asked in probe if not asked.is_read]) >= PROBE_COMMANDS
            assert any(asked.is_read for asked in probe)

    def test_the_history_is_judged(self) -> None:
        assert run_seed(3, events=500).fired["history linearizable"] == 1


class TestFailing:
    """Whatever goes wrong is the result's failure; nothing is raised."""

    def fails(self, rule: str, says: str, **given: Any) -> None:
        result = run_seed(2, events=300, changes=quiet(3), **given)
        assert result.failure is not None
        assert (result.failure.rule, result.healed_in_ticks) == (rule, 0)
        assert says in result.failure.message
        assert 0 < result.failure.event <= result.events
        assert result.failure.tick > 0

    def test_by_the_rule_that_is_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def executed(workload: KvWorkload, command: bytes, result: object) -> None:
            raise Broken("11", "a planted bug")

        monkeypatch.setattr(KvWorkload, "executed", executed)
        self.fails("11", "rule 11: a planted bug")  # out of a machine, where it comes as MachineFailed

    @pytest.mark.parametrize("error", [InvariantViolation("a hole"), MachineFailed("it raised")])
    def test_by_the_servers_own_checks(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        def query(workload: KvWorkload, rnd: object) -> bytes:
            raise error

        monkeypatch.setattr(KvWorkload, "query", query)
        self.fails("invariant", f"invariant: {error}")

    def test_by_an_error_of_any_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def query(workload: KvWorkload, rnd: object) -> bytes:
            raise ZeroDivisionError("by zero")

        monkeypatch.setattr(KvWorkload, "query", query)
        self.fails("error", "ZeroDivisionError: by zero")

    def test_by_what_clients_saw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that is told of results later than it had them, when others had seen them."""

        def judge(history: object, executions: object, now: int, ended: object) -> object:
            assert history
            raise Broken("linearizable", "nobody could have seen this")

        monkeypatch.setattr(simulation_module, "judge", judge)
        result = run_seed(2, events=300, changes=quiet(3))
        assert result.failure is not None
        assert result.failure.rule == "linearizable"

    def test_by_a_history_that_cannot_be_judged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(simulation_module, "judge", lambda *_: Verdict.UNKNOWN)
        result = run_seed(2, events=300, changes=quiet(3))
        assert result.failure is not None
        assert result.failure.rule == "undecided"

    def test_the_workload_of_a_user_is_not_judged_by_the_rules_of_the_store(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(simulation_module, "judge", None)
        assert run_seed(2, events=300, changes=quiet(3), workload=KvWorkload()).failure is None

    def test_what_cannot_be_asked_for_is_raised(self) -> None:
        with pytest.raises(ConfigError, match="nothing called 'lost'"):
            run_seed(1, changes={"lost": 1})


class TestHealing:
    """A cluster that has healed and is not whole in time has failed, and it is said what is missing."""

    def story(self, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> str:
        heal = Weather.heal

        def healed(weather: Weather) -> None:
            heal(weather)
            spoil(weather)

        monkeypatch.setattr(Weather, "heal", healed)
        failure = run_seed(2, events=300, changes=quiet(3)).failure
        assert failure is not None
        assert failure.rule == "liveness"
        assert failure.message.startswith(
            f"liveness: {HEAL_ELECTIONS} election time-outs after everything healed: "
        )
        return failure.message

    def test_no_way_between_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def cut(weather: Weather) -> None:
            weather._network.cut = {(a, b) for a in range(4) for b in range(4)}

        told = self.story(cut, monkeypatch)
        assert "servers that have not served their own: [1, 2, 3]" in told

    def test_one_that_hears_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def deafen(weather: Weather) -> None:
            weather._network.cut = {(1, 3), (2, 3)}

        told = self.story(deafen, monkeypatch)
        assert told.endswith("servers that have not served their own: [3]")

    def test_one_that_stays_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(weather: Weather) -> None:
            weather._servers[2].kill()

        assert "n2 is down (not started)" in self.story(kill, monkeypatch)

    def test_one_that_has_lost_its_disk_need_not_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        heal = Weather.heal

        def healed(weather: Weather) -> None:
            heal(weather)
            weather._servers[2].spoilt = True
            weather._servers[2].kill()

        monkeypatch.setattr(Weather, "heal", healed)
        assert run_seed(2, events=300, changes=quiet(3)).failure is None

    def test_the_cluster_may_take_all_the_time_there_is(self) -> None:
        """It is whole as soon as there is one leader, the same slots everywhere, and nobody waits."""
        simulation = formed()
        simulation._heal()
        assert simulation._healed_in_ticks < HEAL_ELECTIONS * ELECTION_TICKS
        assert simulation.network.world.loss == 0.0
        assert all(client.commands_left == 0 for client in simulation.clients)
