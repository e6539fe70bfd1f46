"""The plugin: found by its entry point, free for those who do not use it, and plain about what it cannot do.

Its fixtures at work have tests/integration/test_fixtures.py.
"""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from paxos_rsm.testing import pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = "paxos_rsm.testing.pytest_plugin"
OPTIONS = ("-o", "asyncio_default_fixture_loop_scope=function")


def run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    """Runs a test file with nothing but this plugin (and what pytest finds) around it."""
    pytester.makepyfile(test_it=test)
    return pytester.runpytest(
        "-p", PLUGIN, "-p", "no:cacheprovider", "--strict-markers", *OPTIONS, *arguments
    )


def test_the_package_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (named,) = project["entry-points"]["pytest11"].items()
    # Named as the module: whoever also says `-p` or `pytest_plugins` does not register it twice.
    assert named == (PLUGIN, PLUGIN)
    assert import_module(named[1]) is pytest_plugin


def test_it_costs_nothing() -> None:
    program = (
        f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("paxos_rsm") or "." not in name}
    allowed = {"paxos_rsm", "paxos_rsm._version", "paxos_rsm.errors", "paxos_rsm.testing", PLUGIN}
    assert loaded <= allowed


def test_the_mark_and_the_fixtures_are_known(pytester: pytest.Pytester) -> None:
    run(pytester, "", "--markers").stdout.fnmatch_lines(
        ["@pytest.mark.paxos_cluster(servers=3, machine=None*"]
    )
    listed = run(pytester, "", "--fixtures").stdout
    listed.fnmatch_lines(["paxos_cluster*", "*A cluster of server processes*"])
    listed.fnmatch_lines(["paxos_cluster_inprocess*", "*A cluster in this process*"])


def test_arguments_have_names(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        import pytest

        @pytest.mark.paxos_cluster(3)
        def test_it(paxos_cluster_inprocess): ...
        """,
    )
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*takes its arguments by name: servers=..., machine=...*"])


@pytest.mark.parametrize("fixture", ["paxos_cluster", "paxos_cluster_inprocess"])
@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("servers='x'", "has servers='x'; give how many, at least 1"),
        ("servers=0", "has servers=0; give how many, at least 1"),
        ("servers=True", "has servers=True; give how many, at least 1"),
        ("server=3", "has server, which {} does not know; it takes servers, machine, directory, "),
        ("size=3", "has size, which {} does not know"),
    ],
)
def test_what_the_mark_cannot_mean_is_refused(
    pytester: pytest.Pytester, fixture: str, argument: str, says: str
) -> None:
    outcome = run(
        pytester,
        f"""
        import pytest

        @pytest.mark.paxos_cluster({argument})
        def test_it({fixture}): ...
        """,
    )
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines([f"E *test_it: @pytest.mark.paxos_cluster {says.format(fixture)}*"])


def test_a_machine_that_no_process_could_import_is_refused(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        import pytest

        class Outer:
            class Machine: ...

        @pytest.mark.paxos_cluster(machine=Outer.Machine)
        def test_it(paxos_cluster): ...
        """,
    )
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*cannot import test_it:Outer.Machine*"])


def test_a_cluster_that_was_left_running_fails_the_test(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        from paxos_rsm.testing.in_process import InProcessServer

        def test_it(monkeypatch, paxos_cluster_inprocess):
            monkeypatch.setattr(InProcessServer, "running", property(lambda server: server.name == "n2"))
        """,
    )
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*n2 still run: start the cluster by*"])
