import asyncio
import os
import signal
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from paxos_rsm.cli.running import (
    ExecCommand,
    child_environment,
    exit_status,
    run_command,
    terminated_as_interrupted,
)


def parsed(*line: str) -> tuple[Any, ...]:
    seen: list[tuple[Any, ...]] = []

    @click.command(cls=ExecCommand)
    @click.argument("name")
    @click.argument("command", nargs=-1)
    @click.option("--ttl", type=int, default=1)
    @click.option("-f", "--flag", is_flag=True)
    def command(name: str, command: tuple[str, ...], ttl: int, flag: bool) -> None:
        seen.append((name, command, ttl, flag))

    CliRunner().invoke(command, line, catch_exceptions=False)
    return seen[0] if seen else ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["l"], ("l", (), 1, False)),
        (["l", "echo", "-n", "--ttl", "5"], ("l", ("echo", "-n", "--ttl", "5"), 1, False)),
        (["--ttl", "5", "l", "echo"], ("l", ("echo",), 5, False)),
        (["l", "--ttl", "5", "-f", "echo", "-f"], ("l", ("echo", "-f"), 5, True)),
        (["l", "--ttl=5"], ("l", (), 5, False)),
        (["l", "--ttl", "5", "--", "-x", "--", "y"], ("l", ("-x", "--", "y"), 5, False)),
        (["--", "-l", "echo"], ("-l", ("echo",), 1, False)),
        ([], ()),
        (["l", "--nonsense", "echo"], ()),
    ],
)
def test_our_options_stand_before_the_command(line: list[str], expected: tuple[Any, ...]) -> None:
    assert parsed(*line) == expected


def test_the_environment_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAXOS_RSM_WATCH_VALUE", "of an outer watch")
    made = child_environment("WATCH", {"KEY": b'a"\xff', "VALUE": b"\0", "REVISION": 7})
    assert made[b"ETCD_WATCH_KEY"] == rb'"a\"\xff"'
    assert made[b"PAXOS_RSM_WATCH_KEY"] == b'a"\xff'
    assert made[b"ETCD_WATCH_VALUE"] == rb'"\x00"'
    assert b"PAXOS_RSM_WATCH_VALUE" not in made
    assert made[b"ETCD_WATCH_REVISION"] == made[b"PAXOS_RSM_WATCH_REVISION"] == b"7"
    assert made[b"PATH"] == os.environb[b"PATH"]
    assert child_environment("LOCK", {"KEY": b"l/7b"})[b"ETCD_LOCK_KEY"] == b"l/7b"


def test_exit_status() -> None:
    assert [exit_status(code) for code in (0, 7, -15)] == [0, 7, 143]


async def test_runs_a_command_to_its_end() -> None:
    environment = child_environment("LOCK", {"REV": 5})
    code = "import os, sys; sys.exit(int(os.environ['PAXOS_RSM_LOCK_REV']) + 2)"
    assert await run_command([sys.executable, "-c", code], environment) == 7
    with pytest.raises(FileNotFoundError):
        await run_command(["no-such-command-anywhere"], environment)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_command_does_not_outlive_who_runs_it(
    stubborn: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("paxos_rsm.cli.running.GRACE_S", 0.2 if stubborn else 60.0)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    code = f"import os, signal, time; {ignore} print(os.getpid(), flush=True); time.sleep(600)"
    running = asyncio.create_task(run_command([sys.executable, "-c", code], dict(os.environb)))
    pid = ""
    while not pid.endswith("\n"):
        await asyncio.sleep(0.02)
        pid += capfd.readouterr().out
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_told_to_terminate_is_interrupted() -> None:
    async def work() -> None:
        async with terminated_as_interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)

    # Not as a task: KeyboardInterrupt would go through the event loop.
    with pytest.raises(KeyboardInterrupt):
        await work()
