import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from paxos_rsm._version import __version__
from paxos_rsm.cli.app import COMMANDS, MODULES, cli
from paxos_rsm.errors import Unavailable
from tests.unit.cli.helpers import ROOT, command, own_environment, run, spawn


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"paxos-rsm {__version__}\n")


@pytest.mark.parametrize("line", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_under_its_heading(line: list[str]) -> None:
    result = run(*line)
    assert result.exit_code == 0
    for heading, names in COMMANDS.items():
        assert f"\n{heading}:\n" in result.stdout
        for name in names:
            assert re.search(rf"^  {name} +[A-Z]", result.stdout, re.MULTILINE), name


@pytest.mark.parametrize("name", MODULES)
def test_every_help_text_teaches_by_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"paxos-rsm {name}" in result.stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["gte"], "No such command 'gte'"),
        (["get", "--prefx", "a"], "No such option"),
        (["get"], "Missing"),
        (["bench", "think"], "'think' is not one of"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
        (["cluster", "--size", "0"], "not in the range"),
        (["server", "--tick-ms", "soon"], "--tick-ms: 'soon' is not a whole number"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_usage_is_one_line_and_128(line: list[str], words: str) -> None:
    result = run(*line)
    assert result.exit_code == 128
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A subcommand `fail` that raises what is put into the list."""
    errors: list[BaseException] = []

    @click.command("fail")
    @click.option("--debug", is_flag=True)
    def fail(debug: bool) -> None:
        raise errors[0]

    monkeypatch.setattr(cli, "get_command", lambda ctx, name: fail)
    monkeypatch.delenv("PAXOS_RSM_DEBUG", raising=False)
    return errors


def test_an_error_of_ours_is_one_line(failing: list[BaseException]) -> None:
    failing.append(Unavailable("no leader:\ntry again"))
    result = run("fail")
    assert (result.exit_code, result.stderr) == (1, "Error: no leader: try again\n")


def test_a_bug_is_one_line_too_and_debug_shows_where(failing: list[BaseException]) -> None:
    failing.append(KeyError("x"))
    result = run("fail")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: KeyError: 'x'; this is a bug, --debug shows where\n",
    )
    for shown in (run("fail", "--debug"), run("fail", env={"PAXOS_RSM_DEBUG": "1"})):
        assert "Traceback" in shown.stderr
        assert shown.stderr.endswith("--debug shows where\n")


def test_interrupted_is_five(failing: list[BaseException]) -> None:
    failing.append(KeyboardInterrupt())
    result = run("fail")
    assert result.exit_code == 5
    assert result.stderr.strip() == "Error: interrupted"


def test_a_reader_that_goes_away_is_no_error() -> None:
    writes = "import click\nfrom paxos_rsm.cli.app import cli\n" + (
        "@click.command()\ndef many():\n    while True: click.echo('x' * 10000)\n"
        "cli.get_command = lambda ctx, name: many"
    )
    with subprocess.Popen(
        command("many", code=writes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=own_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_exit_codes_of_a_process() -> None:
    assert spawn("--version").returncode == 0
    bad = spawn("get", "--no-such-option")
    assert bad.returncode == 128
    assert bad.stderr.startswith(b"Error: No such option")


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_its_libraries_it_says_what_to_install(module: str) -> None:
    done = spawn("status", code=f"import sys; sys.modules[{module!r}] = None")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(f"Error: the command line needs {module}".encode())
    assert done.stderr.endswith(b"pip install 'paxos-rsm[cli]'\n")


def test_help_loads_no_grpc() -> None:
    """What needs no server answers at once."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write('grpc' if 'grpc' in sys.modules else 'none'))"
    )
    assert spawn("put", "--help", code=code).stderr == b"none"


def test_the_installed_command_is_this_one() -> None:
    script = Path(sys.executable).with_name("paxos-rsm")
    if not script.exists():
        pytest.skip("not installed as a script")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"paxos-rsm {__version__}\n"
