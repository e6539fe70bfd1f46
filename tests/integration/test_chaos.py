"""A short run of ``paxos-rsm chaos``: three servers, some faults, every answer checked, nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paxos_rsm.checker import read_history
from paxos_rsm.testing.chaos.kinds import KINDS
from tests.integration.conftest import ROOT
from tests.integration.kills import LONG
from tests.integration.waiting import eventually

pytestmark = pytest.mark.integration

FAULTS = ("leader-deaf", "leader-kill")
RATE = ("--rate", "60")
"""A fifth of the usual: what is shown here needs no load."""
TIMEOUT_S = 240


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "paxos_rsm.cli", "chaos", *arguments]


def environment(directory: Path) -> dict[str, str]:
    """Scratch directories in a place of their own, so that what is left behind can be seen."""
    return {**os.environ, "TMPDIR": str(directory)}


def processes_of(directory: Path) -> list[str]:
    """Command lines of whatever was started with :func:`environment`: the run, its servers, its proxy."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={directory}\0".encode() in (process / "environ").read_bytes():
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(line)
        except OSError:
            continue  # it has ended
    return [line for line in found if line]


def left_behind(directory: Path) -> list[str]:
    """Processes, mounts and files of a run that is over."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]
    return [*processes_of(directory), *mounts, *(str(path) for path in directory.iterdir())]


def test_a_short_run_is_right_and_reported(tmp_path: Path, tell: Callable[[str], None]) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    only = [word for kind in FAULTS for word in ("--only", kind)]
    done = subprocess.run(
        command("--seed", "5", "--servers", "3", *RATE, *only, "--times", "1", "--out", str(out), "--json"),
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(scratch),
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()[-3_000:] + done.stderr.decode()[-3_000:]
    told = json.loads(done.stdout)
    assert told["verdict"] == "ok"
    assert {check["outcome"] for check in told["checks"]} == {"ok"}
    assert sorted(fault["kind"] for fault in told["faults"]) == sorted(FAULTS)
    assert all(fault["gap_ms"] > 0 for fault in told["faults"])
    assert told["leader_changes"] >= len(FAULTS)  # each of them takes the leader away
    tell(f"chaos, {told['ran_s']:.0f} s: {told['operations']['ok']:,} operations acknowledged")
    assert (
        told["operations"]["ok"] > 100
    )  # enough to be worth a check; how many it are is the machine's affair

    history = read_history(out / "history.jsonl")
    assert len(history) >= told["operations"]["ok"]
    assert {op.op for op in history} == {"put", "get", "delete", "txn", "range"}
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events if event["event"] == "fault-begin"]
    assert any(event["event"] == "leader" for event in events)
    assert json.loads((out / "result.json").read_text()) == told
    assert {f"n{number}.log" for number in (1, 2, 3)} <= {path.name for path in out.iterdir()}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "linearizable: " in page
    assert not re.search(r"(src|href)=[\"']?http", page)
    assert not left_behind(scratch)


LIAR = """
import sys

if "server" in sys.orig_argv:
    from paxos_rsm.machines.kv.machine import KeyValueMachine

    honest, first, asked = KeyValueMachine.query, {}, [0]

    def query(self, request):
        asked[0] += 1
        answer = first.setdefault(request, honest(self, request))
        return answer if asked[0] % 20 == 0 else honest(self, request)

    KeyValueMachine.query = query
"""
"""Planted into every server: each twentieth read is answered as the first of its kind was."""


@LONG[0]
@LONG[1]
def test_servers_that_answer_stale_reads_are_found_out(tmp_path: Path) -> None:
    plant, out = tmp_path / "plant", tmp_path / "out"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(LIAR)
    done = subprocess.run(
        command("--servers", "3", "--only", "follower-pause", "--times", "1", "--out", str(out), "--json"),
        capture_output=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": f"{plant}{os.pathsep}{ROOT}"},
        check=False,
    )
    assert done.returncode == 1, done.stdout.decode()[-3_000:] + done.stderr.decode()[-3_000:]
    outcomes = {check["name"]: check["outcome"] for check in json.loads(done.stdout)["checks"]}
    assert outcomes["linearizable, key by key"] == "violation"
    assert outcomes["linearizable, revision by revision"] == "violation"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "VIOLATION: linearizable, key by key" in page
    assert "data:image/svg+xml;base64," in page  # the history around the read that fits nowhere


def test_ctrl_c_ends_everything_with_5(tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    process = subprocess.Popen(
        command("--seed", "5", "--servers", "3", *RATE, "--only", "leader-pause", "--out", str(out)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(scratch),
    )
    try:
        events = out / "events.jsonl"
        eventually(lambda: events.exists() and "fault-begin" in events.read_text(), "fault", TIMEOUT_S)
        assert len(processes_of(scratch)) == 5  # itself, three servers, the proxy
        process.send_signal(signal.SIGINT)  # while the leader is stopped
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 5, errors.decode()
    assert "interrupted" in errors.decode()
    deadline = time.monotonic() + 20
    while (left := left_behind(scratch)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert (out / "history.jsonl").stat().st_size > 0


def test_the_plan_is_the_same_under_another_hash_seed() -> None:
    told = {
        subprocess.run(
            command("--seed", "99", "--plan", "--json"),
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert {fault["fault"] for fault in json.loads(told.pop())["faults"]} == set(KINDS)
