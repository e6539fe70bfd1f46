"""``paxos-rsm verify``: what a script and a person are told of a directory."""

import json
from pathlib import Path
from random import Random

import pytest

from paxos_rsm.paxos.ready import WriteDecidedThrough
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.segments import SEGMENT_BYTES_MIN
from tests.unit.cli.helpers import run
from tests.unit.storage.helpers import accepted, take


def opened(path: Path) -> DataDirectory:
    return DataDirectory.open(
        path,
        RealFiles(),
        cluster_id=1,
        member_id=11,
        name="n1",
        draw_bits=Random(1).getrandbits,
        segment_bytes=SEGMENT_BYTES_MIN,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a server that has decided three slots, taken a snapshot, and stopped."""
    data = opened(tmp_path / "n1")
    data.log.append([*[accepted(slot, b"x" * 500) for slot in (1, 2, 3)], WriteDecidedThrough(3)])
    take(data.snapshots, 2)
    data.close()
    return tmp_path / "n1"


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_directory(directory: Path) -> None:
    before = {
        path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "LOCK"
    }
    result = run("verify", str(directory))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "identity: " in result.stdout
    assert "sound: decided up to slot 3, compacted through 0, newest sound snapshot 2\n" in result.stdout
    assert "DAMAGED" not in result.stdout
    assert before == {path: path.read_bytes() for path in before}


def test_json_has_it_all(directory: Path) -> None:
    shown = json.loads(run("verify", str(directory), "-w", "json").stdout)
    assert (shown["verdict"], shown["first_damage"]) == ("sound", None)
    assert (shown["name"], shown["cluster_id"], shown["member_id"], shown["boot_count"]) == (
        "n1",
        "1",
        "b",
        1,
    )
    assert (shown["promised"], shown["decided_slot"], shown["snapshot_slot"]) == ("1.7", 3, 2)
    assert {each["problem"] for each in shown["files"]} == {None}
    assert {each["name"].partition("/")[0] for each in shown["files"]} == {"identity", "log", "snapshots"}


def test_other_forms(directory: Path) -> None:
    table = run("verify", str(directory), "-w", "table")
    assert table.exit_code == 0
    assert all(word in table.stdout for word in ("file", "bytes", "content", "damage", "identity"))
    assert '"Verdict" : "sound"' in run("verify", str(directory), "-w", "fields").stdout


def test_a_damaged_snapshot_is_named_and_what_it_means(directory: Path) -> None:
    [snapshot] = (directory / "snapshots").iterdir()
    damage(snapshot, snapshot.stat().st_size // 2)
    result = run("verify", str(directory))
    assert result.exit_code == 1
    assert "DAMAGED: " in result.stdout
    assert "at byte " in result.stdout
    assert "repairable: " in result.stdout
    shown = json.loads(run("verify", str(directory), "-w", "json").stdout)
    assert shown["verdict"] == "repairable"
    assert shown["first_damage"]["name"] == f"snapshots/{snapshot.name}"
    assert shown["meaning"]


def test_a_damaged_identity_is_refused(directory: Path) -> None:
    damage(directory / "identity", 30)
    result = run("verify", str(directory))
    assert result.exit_code == 1
    assert "refused: " in result.stdout
    assert "does not match its checksum" in result.stdout
    assert json.loads(run("verify", str(directory), "-w", "json").stdout)["name"] is None


def test_what_is_no_data_directory_is_3(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        result = run("verify", str(path))
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(f"Error: there is no data directory at {path}")


def test_a_directory_in_use_is_3(directory: Path) -> None:
    server = opened(directory)
    result = run("verify", str(directory))
    server.close()
    assert result.exit_code == 3
    assert "is in use by the process" in result.stderr
