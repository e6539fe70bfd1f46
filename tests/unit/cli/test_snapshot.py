import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from paxos_rsm.cli import snapshot as module
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.snapshot import save_to
from paxos_rsm.testing import PortHolder
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import run


async def pieces(*blobs: bytes) -> AsyncIterator[bytes]:
    for blob in blobs:
        yield blob


def test_saves_what_the_server_streams(tmp_path: Path) -> None:
    member, file = Member(1), tmp_path / "backup.db"
    with serving(member):
        result = run("snapshot", "save", str(file), "--endpoints", member.endpoint)
        assert (result.exit_code, result.stdout) == (0, f"Snapshot saved at {file}\n")
        digest = hashlib.sha256(b"state and more").digest()
        assert file.read_bytes() == b"state and more" + digest
        shown = json.loads(
            run("snapshot", "save", str(file), "-w", "json", "--endpoints", member.endpoint).stdout
        )
        assert (shown["size"], shown["sha256"]) == (46, digest.hex())
    assert [each.name for each in tmp_path.iterdir()] == ["backup.db"]


def test_goes_on_to_one_that_is_there(tmp_path: Path) -> None:
    member = Member(1)
    with PortHolder() as holder, serving(member):
        endpoints = f"127.0.0.1:{holder.take(1)[0]},{member.endpoint}"
        assert run("snapshot", "save", str(tmp_path / "b"), "--endpoints", endpoints).exit_code == 0


@pytest.mark.parametrize("blobs", [(), (b"short",), (b"state", b"x" * 32), (b"x" * 31,)])
async def test_what_is_not_whole_leaves_no_file_and_the_old_one_as_it_was(
    tmp_path: Path, blobs: tuple[bytes, ...]
) -> None:
    file = tmp_path / "backup.db"
    file.write_bytes(b"old")
    with pytest.raises(Failure, match="it is not whole"):
        await save_to(file, pieces(*blobs))
    assert os.listdir(tmp_path) == ["backup.db"]
    assert file.read_bytes() == b"old"


async def test_the_checksum_may_come_in_pieces(tmp_path: Path) -> None:
    data = bytes(range(100))
    whole = data + hashlib.sha256(data).digest()
    size, checksum = await save_to(tmp_path / "b", pieces(*(whole[at : at + 7] for at in range(0, 132, 7))))
    assert (size, checksum) == (132, whole[-32:].hex())
    assert (tmp_path / "b").read_bytes() == whole


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    member = Member(1)
    with serving(member):
        result = run("snapshot", "save", str(tmp_path / "no" / "b"), "--endpoints", member.endpoint)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {tmp_path / 'no' / 'b'} cannot be written: No such file or directory; no backup was saved\n"
    )


def test_a_disk_that_is_full_is_named_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(out: BinaryIO, blobs: AsyncIterator[bytes]) -> tuple[int, str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with serving(member := Member(1)):
        result = run("snapshot", "save", str(tmp_path / "b"), "--endpoints", member.endpoint)
    assert f"{tmp_path / 'b'} cannot be written: No space left on device" in result.stderr
    assert os.listdir(tmp_path) == []


def test_a_backup_is_for_its_owner_alone(tmp_path: Path) -> None:
    with serving(member := Member(1)):
        run("snapshot", "save", str(tmp_path / "b"), "--endpoints", member.endpoint)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


async def test_two_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups by the clock, of which one takes longer than the time between two."""
    one, other = (data + hashlib.sha256(data).digest() for data in (b"1" * 99, b"2" * 50))

    async def slow() -> AsyncIterator[bytes]:
        yield one[:70]
        with monkeypatch.context() as another_process:
            another_process.setattr(os, "getpid", lambda: 1)
            await save_to(tmp_path / "b", pieces(other))
        assert (tmp_path / "b").read_bytes() == other
        yield one[70:]

    await save_to(tmp_path / "b", slow())
    assert (tmp_path / "b").read_bytes() == one


def test_what_each_endpoint_said_is_told(tmp_path: Path) -> None:
    member = Member(1)
    member.no_leader = True
    with PortHolder() as holder, serving(member):
        away = f"127.0.0.1:{holder.take(1)[0]}"
        result = run("snapshot", "save", str(tmp_path / "b"), "--endpoints", f"{member.endpoint},{away}")
    assert result.exit_code == 1
    assert result.stderr == (f"Error: {member.endpoint}: etcdserver: no leader; {away}: connection refused\n")
