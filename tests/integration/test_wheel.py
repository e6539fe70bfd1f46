"""The wheel: built from this tree, installed in an empty environment, and used from there."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from paxos_rsm._version import __version__
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import ROOT

TIMEOUT_S = 300


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command to its end, and gives what it printed. Fails where it fails."""
    # Away from this checkout, and without its path: what is imported is what was installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """The ``bin`` of an environment in which there is nothing but the wheel and what it asks for."""
    with tempfile.TemporaryDirectory(prefix="paxos-rsm-wheel-") as name:
        directory = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
        (wheel,) = directory.glob("*.whl")
        environment = directory / "venv"
        run(sys.executable, "-m", "venv", "--without-pip", environment)
        python = environment / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "-q", f"{wheel}[cli]", cwd=directory)
        yield environment / "bin"


@pytest.mark.timeout(400)
def test_the_wheel_works_where_nothing_else_is(installed: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="paxos-rsm-wheel-") as name:
        elsewhere = Path(name)
        command = installed / "paxos-rsm"
        assert run(command, "--version", cwd=elsewhere) == f"paxos-rsm {__version__}\n"
        found = run(installed / "python", "-c", "import paxos_rsm; print(paxos_rsm.__file__)", cwd=elsewhere)
        assert Path(found.strip()).is_relative_to(installed.parent)

        server = [str(command), "server", "--until-stdin-closes"]
        with LocalCluster(1, directory=elsewhere / "data", command=server) as cluster:
            endpoint = cluster["n1"].endpoint
            assert run(command, "put", "greeting", "hello", "--endpoints", endpoint, cwd=elsewhere) == "OK\n"
            assert (
                run(command, "get", "greeting", "--endpoints", endpoint, cwd=elsewhere) == "greeting\nhello\n"
            )
            assert cluster.terminate() == {"n1": 0}


def test_the_version_is_one_that_tools_understand() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", __version__)
