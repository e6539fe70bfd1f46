"""The verdict can fail: each check is shown a history in which just that is wrong."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.testing.chaos.outcome import Check
from paxos_rsm.testing.chaos.verdict import Evidence, Final, KeyState, judge

LOST = "no acknowledged write lost"
TWICE = "nothing executed twice"
PER_KEY = "linearizable, key by key"
TXNS = "linearizable, revision by revision"
SAME = "same state everywhere"
LIVED = "servers lived and recovered"
NO_BUG = "clients met no bug"


class History:
    """Operations one after the other, each of a process of its own, and the store as they leave it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.final = Final(call_ms=1e6, return_ms=1e6 + 1)
        self.once: dict[str, int] = {}
        self.at = 0.0

    def add(self, op: str, key: str, given: Any, output: Any, status: str = "ok") -> dict[str, Any]:
        """An operation that begins when the one before it has ended."""
        line = {
            "process": len(self.lines) + 1,
            "op": op,
            "key": key,
            "input": given,
            "output": output if status == "ok" else None,
            "call": self.at,
            "return": None if status == "unknown" else self.at + 1,
            "status": status,
        }
        self.lines.append(line)
        self.at += 2
        return line

    def write(self, key: str, value: str) -> None:
        """The store has it, at a revision of its own."""
        self.final.revision += 1
        before = self.final.keys.get(key)
        self.final.keys[key] = KeyState(
            value,
            before.version + 1 if before else 1,
            before.create_revision if before else self.final.revision,
            self.final.revision,
        )

    def put(self, key: str, value: str, status: str = "ok", *, takes_effect: bool = True) -> None:
        """Writes a key; the store has it, unless it is not to."""
        if takes_effect:
            self.write(key, value)
        self.add("put", key, value, {"revision": self.final.revision}, status)
        if key.startswith("once/") and status == "ok":
            self.once[key] = self.final.revision

    def get(self, key: str, value: str | None) -> None:
        """Reads a key and is answered ``value``, with nothing said of its revisions where it is not what is there."""
        held = self.final.keys.get(key)
        kv = None if value is None else {"value": value}
        if kv is not None and held is not None and held.value == value:
            kv = asdict(held)
        self.add("get", key, None, {"revision": self.final.revision, "kv": kv})

    def swap(self, key: str, expected: str, new: str, *, told: bool, takes_effect: bool) -> None:
        """A compare-and-swap that is answered ``told``."""
        given = {
            "compare": [{"key": key, "target": "value", "result": "=", "value": expected}],
            "success": [{"op": "put", "key": key, "input": new}],
            "failure": [],
        }
        if takes_effect:
            self.write(key, new)
        output = {"revision": self.final.revision, "succeeded": told, "responses": [{}] if told else []}
        self.add("txn", key, given, output)

    def judged(self, directory: Path, **other: Any) -> dict[str, Check]:
        """The checks, by name."""
        path = directory / "history.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        evidence: dict[str, Any] = {
            "states": {"n1": (9, "ab"), "n2": (9, "ab")},
            "final": self.final,
            "once_acknowledged": self.once,
        }
        return {check.name: check for check in judge(Evidence(history=path, **{**evidence, **other}))}


def sound() -> History:
    """A history in which everything is right, over several epochs."""
    history = History()
    for epoch in range(6):
        for number in range(20):
            key = f"k{epoch:04d}/{number % 4:02d}"
            history.put(key, f"v{epoch}-{number}")
            history.get(key, f"v{epoch}-{number}")
        history.put(f"once/1/{epoch:06d}", f"o{epoch}")
        history.put(f"probe/n1/{epoch:04d}", f"p{epoch}")
    return history


def outcomes(checks: dict[str, Check], names: Iterable[str] = ()) -> dict[str, str]:
    return {name: check.outcome for name, check in checks.items() if not names or name in names}


def test_a_sound_history_passes_every_check(tmp_path: Path) -> None:
    checks = sound().judged(tmp_path)
    assert set(outcomes(checks).values()) == {"ok"}, checks
    assert set(checks) == {LIVED, NO_BUG, SAME, LOST, TWICE, PER_KEY, TXNS}


def test_a_write_once_key_that_is_gone_is_a_lost_write(tmp_path: Path) -> None:
    history = sound()
    del history.final.keys["once/1/000003"]
    checks = history.judged(tmp_path)
    assert outcomes(checks)[LOST] == "violation"
    assert "once/1/000003" in checks[LOST].details[0]


def test_a_lost_write_of_any_key_is_found_by_the_last_read(tmp_path: Path) -> None:
    history = sound()
    history.final.keys["k0002/03"] = KeyState("v2-15", 4, 1, 1)  # the write of v2-19 was acknowledged later
    assert outcomes(history.judged(tmp_path), [PER_KEY]) == {PER_KEY: "violation"}


def test_a_lost_probe_is_found_too(tmp_path: Path) -> None:
    history = sound()
    del history.final.keys["probe/n1/0004"]
    assert outcomes(history.judged(tmp_path), [PER_KEY]) == {PER_KEY: "violation"}


def test_a_stale_read_is_found_and_drawn(tmp_path: Path) -> None:
    history = sound()
    history.get("k0005/03", "v5-15")  # v5-19 was acknowledged before this began
    check = history.judged(tmp_path)[PER_KEY]
    assert check.outcome == "violation"
    assert "k0005/03" in check.told
    assert "data:image/svg+xml;base64," in check.drawing


def test_a_read_of_a_value_that_nobody_wrote_is_found(tmp_path: Path) -> None:
    history = sound()
    history.add("get", "k0001/01", None, {"revision": 9, "kv": {"value": "never"}})
    assert outcomes(history.judged(tmp_path), [PER_KEY]) == {PER_KEY: "violation"}


def test_a_swap_that_says_it_failed_and_was_done_is_found(tmp_path: Path) -> None:
    """What a compare-and-swap that is executed twice tells its caller."""
    history = sound()
    history.put("c0005", "1 a")
    history.swap("c0005", "1 a", "2 b", told=False, takes_effect=True)
    history.get("c0005", "2 b")
    assert outcomes(history.judged(tmp_path), [PER_KEY]) == {PER_KEY: "violation"}


def test_a_write_once_key_at_version_two_was_executed_twice(tmp_path: Path) -> None:
    history = sound()
    state = history.final.keys["once/1/000002"]
    history.final.keys["once/1/000002"] = KeyState(
        state.value, 2, state.create_revision, state.mod_revision + 1
    )
    check = history.judged(tmp_path)[TWICE]
    assert check.outcome == "violation"
    assert "version 2" in check.details[0]


def test_more_revisions_than_writes_is_a_double_execution(tmp_path: Path) -> None:
    history = sound()
    history.final.revision += 1
    check = history.judged(tmp_path)[TWICE]
    assert check.outcome == "violation"
    assert "acknowledged to nobody" in check.details[0]


def test_a_write_of_unknown_outcome_explains_one_revision_and_not_two(tmp_path: Path) -> None:
    history = sound()
    history.put("once/2/000000", "x", "unknown")
    assert outcomes(history.judged(tmp_path), [TWICE, LOST]) == {LOST: "ok", TWICE: "ok"}
    history.final.revision += 1
    assert outcomes(history.judged(tmp_path), [TWICE]) == {TWICE: "violation"}


def test_fewer_revisions_than_were_acknowledged_is_found(tmp_path: Path) -> None:
    history = sound()
    history.final.revision -= 1
    assert outcomes(history.judged(tmp_path), [TWICE]) == {TWICE: "violation"}


def test_one_revision_for_two_writes_is_found(tmp_path: Path) -> None:
    history = sound()
    history.lines[0]["output"]["revision"] = history.lines[2]["output"]["revision"]
    assert outcomes(history.judged(tmp_path), [TWICE]) == {TWICE: "violation"}


def test_a_refused_write_that_is_there_is_found(tmp_path: Path) -> None:
    history = sound()
    history.put("once/2/000007", "x", "fail")
    check = history.judged(tmp_path)[TWICE]
    assert check.outcome == "violation"
    assert "refused" in check.details[0]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"n1": (9, "ab"), "n2": (9, "cd")}, "diverged"),
        ({"n1": (9, "ab"), "n2": (8, "ab")}, "one slot in time"),
        ({"n1": (9, "ab"), "n2": None}, "n2 did not answer"),
    ],
)
def test_servers_that_differ(tmp_path: Path, states: Any, words: str) -> None:
    check = sound().judged(tmp_path, states=states)[SAME]
    assert check.outcome == "violation"
    assert words in check.told


def test_what_the_nemesis_and_the_clients_saw(tmp_path: Path) -> None:
    checks = sound().judged(tmp_path, problems=["n3 ended with exit code 1"], client_failure=KeyError("x"))
    assert outcomes(checks, [LIVED, NO_BUG]) == {LIVED: "violation", NO_BUG: "violation"}
    assert "n3 ended" in checks[LIVED].details[0]
    assert "KeyError" in checks[NO_BUG].told


def test_nothing_is_no_pass(tmp_path: Path) -> None:
    history = History()
    checks = history.judged(tmp_path, final=None)
    assert outcomes(checks, [LOST, TWICE, PER_KEY, TXNS]) == dict.fromkeys(
        [LOST, TWICE, PER_KEY, TXNS], "unknown"
    )
