"""``cluster`` over stand-ins for servers (tests/unit/testing/fake_server.py), in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paxos_rsm.cli.cluster import EndedBySignal, check_made_with, signals_end_it
from paxos_rsm.cli.failures import Failure
from paxos_rsm.testing import PortHolder
from tests.unit.cli.helpers import FAKE_SERVER, ROOT, command, own_environment, run

CODE = (
    "from paxos_rsm.testing import cluster\n"
    f"cluster.server_command = lambda: [{sys.executable!r}, {str(FAKE_SERVER)!r}]"
)


class Running:
    """A ``paxos-rsm cluster``, and what it has said so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said = ""

    def until(self, pattern: str) -> "re.Match[str]":
        """Reads on until ``pattern`` is there."""
        assert self.process.stdout is not None
        while not (found := re.search(pattern, self.said)):
            line = self.process.stdout.readline()
            assert line, f"ended without {pattern!r}: {self.said}"
            self.said += line
        return found

    def rest(self) -> str:
        """Everything, to the end."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.said


@contextmanager
def running(*options: str, **env: str) -> Iterator[Running]:
    line = command("cluster", *options, code=CODE)
    with (
        PortHolder() as holder,
        subprocess.Popen(
            [*line, "--base-port", str(holder.take_row(6)[0])] if "--base-port" not in options else line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=own_environment(**env),
        ) as process,
    ):
        try:
            yield Running(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_until_told_to_end_and_ends_its_servers_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running("--data-dir", str(tmp_path / "c")) as cluster:
        cluster.until("leader: n1 at 127.0.0.1:")
        base = int(cluster.until(r"endpoints: 127\.0\.0\.1:(\d+),")[1])
        assert f"endpoints: 127.0.0.1:{base},127.0.0.1:{base + 2},127.0.0.1:{base + 4}\n" in cluster.said
        assert str(tmp_path / "c" / "n3") in cluster.said
        cluster.process.send_signal(number)
        assert "ended; " in cluster.rest()
        assert cluster.process.wait(60) == 0
    for name in ("n1", "n2", "n3"):
        assert (tmp_path / "c" / f"{name}.log").read_text().endswith("ended in order\n")


def test_a_server_that_dies_is_reported_with_how_to_start_it(tmp_path: Path) -> None:
    with running("--data-dir", str(tmp_path), "--machine", "m:C", "--election-timeout", "400") as cluster:
        pid = int(cluster.until(r"n2 +│[^│]+│[^│]+│ +(\d+) ")[1])
        os.kill(pid, signal.SIGKILL)
        told = cluster.until(
            r"n2 \(pid (\d+)\) was killed by SIGKILL\n +its log: .*n2\.log\n.*start it again: (.*)\n"
        )
        assert int(told[1]) == pid
        assert re.match(
            r"paxos-rsm server --name n2 --data-dir .* --machine m:C --election-timeout 400$", told[2]
        )
        assert cluster.process.poll() is None  # the others go on
        cluster.process.send_signal(signal.SIGTERM)
        assert cluster.process.wait(60) == 0


def test_without_servers_it_ends(tmp_path: Path) -> None:
    with running("--data-dir", str(tmp_path), "--size", "1") as cluster:
        os.kill(int(cluster.until(r"n1 +│[^│]+│[^│]+│ +(\d+) ")[1]), signal.SIGKILL)
        assert f"Error: no server is left; their logs are {tmp_path}/n*.log\n" in cluster.rest()
        assert cluster.process.wait(60) == 1


def test_a_server_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    with running("--data-dir", str(tmp_path), FAKE_EXIT="4") as cluster:
        assert re.search(r"Error: n\d ended with exit code 4: cannot start: told so\n", cluster.rest())
        assert cluster.process.wait(60) == 1


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        result = run("cluster", "--data-dir", str(tmp_path), "--base-port", str(port))
    assert result.exit_code == 1
    assert result.stderr == f"Error: port {port} of 127.0.0.1 is in use: n1 cannot have it\n"


def test_more_ports_than_there_are() -> None:
    result = run("cluster", "--base-port", "65533")
    assert result.exit_code == 128
    assert "3 servers need the ports up to 65538" in result.stderr


def test_a_directory_belongs_to_the_cluster_that_was_made_in_it(tmp_path: Path) -> None:
    made = {"size": 3, "base_port": 2379, "machine": None}
    check_made_with(tmp_path / "new", made)
    check_made_with(tmp_path / "new", {**made, "size": 5})  # nothing was started yet
    (tmp_path / "new" / "n1").mkdir()
    check_made_with(tmp_path / "new", {**made, "size": 5})
    with pytest.raises(Failure, match="made with --size 5 --base-port 2379: start it so"):
        check_made_with(tmp_path / "new", made)
    (tmp_path / "new" / "cluster.json").write_text("[1")
    with pytest.raises(Failure, match="cannot be read; remove"):
        check_made_with(tmp_path / "new", made)
    assert json.dumps(made) not in (tmp_path / "new" / "cluster.json").read_text()


def test_signals_end_it_and_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ended() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with pytest.raises(EndedBySignal), signals_end_it():
        ended()
    assert signal.getsignal(signal.SIGTERM) is before
