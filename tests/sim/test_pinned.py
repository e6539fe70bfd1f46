"""Runs that once failed are played again, and have to be green; see pinned/README.md."""

from pathlib import Path

import pytest

from paxos_rsm.sim.failure import Broken
from paxos_rsm.sim.minimize import Pinned, pin, read_pin
from paxos_rsm.sim.workload import KvWorkload

PINNED = Path(__file__).parent / "pinned"


def failures(directory: Path) -> list[str]:
    """What fails of the runs that are kept in a directory."""
    told = []
    for path in sorted(directory.glob("*.json")):
        pinned = read_pin(path)
        failure = pinned.run().failure
        if failure is not None:
            changed = "".join(f" --set {name}={value}" for name, value in pinned.changes.items()).lower()
            again = f"paxos-rsm sim --seed {pinned.seed} --events {pinned.events}{changed} --trace"
            told.append(f"{path.name}: {failure}\n  repeat it with: {again}")
    return told


def test_what_was_pinned_is_green() -> None:
    told = failures(PINNED)
    assert not told, "\n" + "\n".join(told)


def test_what_fails_is_told_with_the_command_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def executed(workload: KvWorkload, command: bytes, result: object) -> None:
        raise Broken("11", "a planted bug")

    pinned = Pinned(3, 200, {"loss": 0.0, "fifo": True})
    with monkeypatch.context() as planted:
        planted.setattr(KvWorkload, "executed", executed)
        failure = pinned.run().failure
        assert failure is not None
        pin(tmp_path, pinned, failure)
        (told,) = failures(tmp_path)
        assert "seed_3_11.json: rule 11: a planted bug" in told
        assert "paxos-rsm sim --seed 3 --events 200 --set loss=0.0 --set fifo=true --trace" in told
    assert failures(tmp_path) == []
