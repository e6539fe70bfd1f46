"""The command against a cluster, as a person or a script runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from paxos_rsm.cli.app import cli
from paxos_rsm.testing import LocalCluster

TIMEOUT_S = 60


def environment() -> dict[str, str]:
    """Ours, without what would configure the command."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PAXOS_RSM_", "ETCDCTL_"))
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "paxos_rsm.cli", *arguments]


def of(cluster: LocalCluster) -> dict[str, str]:
    """An environment in which the command turns to every server of the cluster."""
    return {**environment(), "PAXOS_RSM_ENDPOINTS": ",".join(cluster.endpoints)}


def run(cluster: LocalCluster, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """One command in a process of its own, with every server of the cluster to turn to."""
    return subprocess.run(
        command(*arguments), input=stdin, capture_output=True, timeout=TIMEOUT_S, env=of(cluster), check=False
    )


def ask(cluster: LocalCluster, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """The same inside this process, where that it is another is not the point: to start one costs more than to ask."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - of(cluster).keys():
            patch.delenv(name)
        done = CliRunner().invoke(
            cli, arguments, input=stdin, env=of(cluster), prog_name="paxos-rsm", catch_exceptions=False
        )
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout_bytes, done.stderr_bytes)


def printed(cluster: LocalCluster, *arguments: str, stdin: bytes = b"") -> bytes:
    """What a command that succeeds has printed."""
    done = ask(cluster, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr
    return done.stdout


@contextmanager
def running(cluster: LocalCluster, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that goes on until it is told otherwise; it is killed at the end where nobody has."""
    line = command(*arguments)
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=of(cluster)
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def lines_of(process: "subprocess.Popen[bytes]", count: int) -> bytes:
    """The next lines that it prints."""
    assert process.stdout is not None
    return b"".join(process.stdout.readline() for _ in range(count))
