"""Runs command lines: in this process, or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from paxos_rsm.cli.app import cli

ROOT = Path(__file__).resolve().parents[3]
FAKE_SERVER = Path(__file__).resolve().parents[1] / "testing" / "fake_server.py"


def run(*args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> Result:
    """A command line in this process; its exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli, args, input=stdin, env=env, prog_name="paxos-rsm")


def own_environment(**extra: str) -> dict[str, str]:
    """This process's environment, without what would configure the command."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PAXOS_RSM_")} | extra


def command(*args: str, code: str = "") -> list[str]:
    """A command line for a process of its own, after ``code`` has run in it."""
    if not code:
        return [sys.executable, "-m", "paxos_rsm.cli", *args]
    return [sys.executable, "-c", f"{code}\nfrom paxos_rsm.cli import main\nmain()", *args]


def spawn(*args: str, code: str = "", stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command line in a process of its own, to its end."""
    return subprocess.run(
        command(*args, code=code),
        input=stdin,
        capture_output=True,
        timeout=100,
        env=own_environment(**env),
        cwd=ROOT,
        check=False,
    )
