"""The interface, on a real directory and in memory alike; and what only the real one has."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paxos_rsm.errors import DirectoryUnusable, DiskFull, LogIOError, StorageError
from paxos_rsm.storage.files import FileSystem, RealFiles, storage_error
from paxos_rsm.storage.memory import MemoryFiles


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FileSystem, str]:
    """A file system, and an empty directory in it."""
    if request.param == "real":
        return RealFiles(), str(tmp_path)
    files = MemoryFiles()
    files.mkdir("/d")
    return files, "/d"


Place = tuple[FileSystem, str]


def test_a_new_file_is_zeros_of_its_size(place: Place) -> None:
    files, directory = place
    file = files.create(f"{directory}/a", 3 << 20)
    assert file.size() == 3 << 20
    file.close()
    assert files.read(f"{directory}/a") == bytes(3 << 20)


def test_creating_replaces(place: Place) -> None:
    files, directory = place
    first = files.create(f"{directory}/a", 10)
    first.pwrite(b"old", 0)
    first.close()
    files.create(f"{directory}/a", 0).close()
    assert files.read(f"{directory}/a") == b""


def test_bytes_are_read_where_they_were_written(place: Place) -> None:
    files, directory = place
    file = files.create(f"{directory}/a", 16)
    file.pwrite(b"abcd", 4)
    file.fdatasync()
    assert file.pread(6, 3) == b"\0abcd\0"
    assert file.pread(100, 14) == b"\0\0"
    assert file.pread(1, 16) == b""
    file.pwrite(b"beyond", 16)
    assert file.size() == 22
    file.close()
    file.close()
    again = files.open(f"{directory}/a")
    again.pwrite(b"ABCD", 4)
    again.close()
    assert files.read(f"{directory}/a") == b"\0\0\0\0ABCD" + bytes(8) + b"beyond"


def test_names(place: Place) -> None:
    files, directory = place
    for name in ("b", "a"):
        files.create(f"{directory}/{name}", 1).close()
    assert files.mkdir(f"{directory}/sub") is True
    assert files.mkdir(f"{directory}/sub") is False
    files.create(f"{directory}/sub/inner", 1).close()
    assert files.names(directory) == ["a", "b", "sub"]
    files.rename(f"{directory}/a", f"{directory}/b")
    files.remove(f"{directory}/sub/inner")
    files.sync_directory(directory)
    assert files.names(directory) == ["b", "sub"]
    assert files.names(f"{directory}/sub") == []


def test_what_is_missing_or_of_another_kind_is_told(place: Place) -> None:
    files, directory = place
    for call in (files.open, files.read, files.remove, files.names, files.sync_directory):
        with pytest.raises(FileNotFoundError):
            call(f"{directory}/none")
    with pytest.raises(FileNotFoundError):
        files.mkdir(f"{directory}/none/sub")
    with pytest.raises(FileNotFoundError):
        files.create(f"{directory}/none/a", 1)
    with pytest.raises(FileNotFoundError):
        files.rename(f"{directory}/none", f"{directory}/a")
    files.create(f"{directory}/file", 1).close()
    with pytest.raises(NotADirectoryError):
        files.mkdir(f"{directory}/file")
    with pytest.raises(NotADirectoryError):
        files.mkdir(f"{directory}/file/sub")


def test_a_lock_excludes_until_it_is_released(place: Place) -> None:
    files, directory = place
    lock = files.lock(f"{directory}/LOCK", b"4711\n")
    with pytest.raises(BlockingIOError):
        files.lock(f"{directory}/LOCK", b"4712\n")
    assert files.read(f"{directory}/LOCK") == b"4711\n"
    lock.release()
    lock.release()
    files.lock(f"{directory}/LOCK", b"8\n").release()
    assert files.read(f"{directory}/LOCK") == b"8\n"


def test_a_real_lock_excludes_another_process_and_dies_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "LOCK")
    holder = (
        "import sys\nfrom paxos_rsm.storage.files import RealFiles\n"
        f"lock = RealFiles().lock({path!r}, b'holder')\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            RealFiles().lock(path, b"second")
        assert Path(path).read_bytes() == b"holder"
        process.kill()
        process.wait()
        RealFiles().lock(path, b"second").release()


def test_real_files_are_their_owners_only_and_have_their_space(tmp_path: Path) -> None:
    RealFiles().create(f"{tmp_path}/a", 1 << 20).close()
    RealFiles().mkdir(f"{tmp_path}/d")
    status = os.stat(tmp_path / "a")
    assert status.st_mode & 0o077 == 0
    assert os.stat(tmp_path / "d").st_mode & 0o077 == 0
    assert status.st_blocks * 512 >= 1 << 20


def test_a_file_system_that_cannot_allocate_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    RealFiles().create(f"{tmp_path}/a", (1 << 20) + 5).close()
    assert (tmp_path / "a").read_bytes() == bytes((1 << 20) + 5)


def test_a_write_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data)[:3], offset))
    file = RealFiles().create(f"{tmp_path}/a", 0)
    file.pwrite(b"0123456789", 2)
    file.close()
    assert (tmp_path / "a").read_bytes() == b"\0\x000123456789"


def test_a_write_that_stops_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealFiles().create(f"{tmp_path}/a", 0)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(OSError, match="wrote nothing"):
        file.pwrite(b"0123456789", 0)


@pytest.mark.parametrize("code", [0, errno.EINVAL])
def test_a_directory_that_cannot_be_synced_need_not(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(fd: int) -> None:
        synced.append(fd)
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    RealFiles().sync_directory(str(tmp_path))
    assert len(synced) == 1


def test_a_directory_whose_sync_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        RealFiles().sync_directory(str(tmp_path))


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, DiskFull, "free some space"),
        (errno.EDQUOT, DiskFull, "free some space"),
        (errno.EIO, LogIOError, "check the disk"),
        (errno.EBADF, LogIOError, "check the disk"),
        (errno.EACCES, DirectoryUnusable, "may read and write"),
        (errno.EROFS, DirectoryUnusable, "may read and write"),
    ],
)
def test_errors_say_what_failed_and_what_to_do(code: int, kind: type[StorageError], says: str) -> None:
    error = storage_error(OSError(code, os.strerror(code)), "writing the log in /d/log")
    assert type(error) is kind
    assert "writing the log in /d/log" in str(error)
    assert says in str(error)
