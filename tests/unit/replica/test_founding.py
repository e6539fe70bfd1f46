"""The state that a cluster was founded on, into the state machine; or the sentence that says why not."""

from pathlib import Path

import pytest

from paxos_rsm.errors import ConfigError, MachineFailed, SnapshotDamaged
from paxos_rsm.machines.base import Position, SimpleMachine
from paxos_rsm.paxos.ready import WriteDecided
from paxos_rsm.paxos.types import Noop
from paxos_rsm.replica.founding import restore_initial
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import File, RealFiles
from paxos_rsm.storage.restore import restore_directory
from tests.unit.storage.helpers import backup_bytes


class Text(SimpleMachine):
    def __init__(self) -> None:
        self.text = b""

    def apply(self, command: bytes, at: Position) -> bytes:
        raise NotImplementedError

    def query(self, request: bytes) -> bytes:
        raise NotImplementedError

    def dump(self) -> bytes:
        return self.text

    def load(self, state: bytes) -> None:
        if state == b"bad":
            raise ValueError("no text of mine")
        self.text = state


def restored(path: Path, state: bytes, machine: str = "elsewhere:Text") -> DataDirectory:
    """An open directory that began with ``state``."""

    def fill(file: File) -> None:
        file.pwrite(backup_bytes([state[:2], state[2:]], machine), 0)

    restore_directory(
        RealFiles(),
        path,
        fill,
        name="n1",
        member_id=11,
        cluster_id_of=lambda sha256: 1,
        draw_bits=lambda bits: 5,
    )
    return opened(path)


def opened(path: Path) -> DataDirectory:
    return DataDirectory.open(
        path, RealFiles(), cluster_id=1, member_id=11, name="n1", draw_bits=lambda bits: 6
    )


def test_the_state_is_that_of_the_backup(tmp_path: Path) -> None:
    machine = Text()
    assert restore_initial(restored(tmp_path / "d", b"hello"), machine)
    assert machine.text == b"hello"


def test_a_directory_that_began_with_nothing(tmp_path: Path) -> None:
    machine = Text()
    assert restore_initial(opened(tmp_path / "d"), machine)
    assert machine.text == b""


def test_the_state_of_another_machine_is_refused_by_name(tmp_path: Path) -> None:
    directory = restored(tmp_path / "d", b"hello", "counting:Counter")
    with pytest.raises(ConfigError, match=r"saved by .* counting:Counter, .* --machine counting:Counter"):
        restore_initial(directory, Text())


def test_a_state_that_the_machine_does_not_take_back(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match=r"does not take back .*ValueError: no text of mine"):
        restore_initial(restored(tmp_path / "d", b"bad"), Text())


def test_damage_stops_one_that_never_took_part(tmp_path: Path) -> None:
    directory = restored(tmp_path / "d", b"hello")
    (tmp_path / "d" / "initial").unlink()
    with pytest.raises(SnapshotDamaged):
        restore_initial(directory, Text())


def test_damage_makes_one_that_took_part_wait_for_the_others(tmp_path: Path) -> None:
    directory = restored(tmp_path / "d", b"hello")
    directory.log.append([WriteDecided(1, Noop())])
    directory.close()
    with (tmp_path / "d" / "initial").open("r+b") as file:
        file.seek(520)
        file.write(b"changed")
    machine = Text()
    assert not restore_initial(opened(tmp_path / "d"), machine)
    assert machine.text == b""
