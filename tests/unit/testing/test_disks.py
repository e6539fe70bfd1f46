"""A small disk that fills up, and what is said where there can be none."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paxos_rsm.testing import FaultUnavailable, LocalClusterError, disks
from paxos_rsm.testing.disks import SmallDisk

SIZE_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk", SIZE_BYTES)
    try:
        made.mount()
    except FaultUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.unmount()


def test_full_and_free_again(disk: SmallDisk) -> None:
    file = disk.path / "file"
    file.write_bytes(b"kept")
    assert 0 < disk.free_bytes <= SIZE_BYTES
    disk.fill()
    assert disk.free_bytes == 0
    with pytest.raises(OSError) as raised:
        (disk.path / "more").write_bytes(bytes(4096))
    assert raised.value.errno == errno.ENOSPC
    disk.fill()
    disk.free()
    disk.free()
    (disk.path / "more").write_bytes(bytes(4096))
    assert file.read_bytes() == b"kept"


def test_mounted_once_and_gone_with_all_that_was_on_it(disk: SmallDisk) -> None:
    (disk.path / "file").write_bytes(b"x")
    disk.mount()
    assert (disk.path / "file").exists()
    with (disk.path / "file").open("rb"):  # somebody looks at it still
        disk.unmount()
    assert not disk.mounted
    assert list(disk.path.iterdir()) == []
    disk.unmount()
    with pytest.raises(LocalClusterError, match="not mounted"):
        disk.fill()


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SmallDisk(tmp_path / "disk", SIZE_BYTES)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(FaultUnavailable, match=r"takes root, and this is user 1000.*faults\.no_space"):
        disk.mount()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disks, "_run", lambda *command: "permission denied")
    with pytest.raises(FaultUnavailable, match=r"permission denied.*CAP_SYS_ADMIN"):
        disk.mount()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(FaultUnavailable, match="needs Linux"):
        disk.mount()


def test_commands_that_fail_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disks._run("true") is None
    assert disks._run("false") == "exit status 1"
    assert disks._run("sh", "-c", "echo no such device >&2; exit 32") == "no such device"
    assert disks._run("no-such-command") == "there is no command no-such-command"
