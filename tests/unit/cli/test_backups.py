"""``snapshot status`` and ``snapshot restore``, on files that were made here."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.config import ServerConfig
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Put
from paxos_rsm.storage.backup_format import HEAD_BYTES, BackupHead
from paxos_rsm.storage.directory import DataDirectory
from paxos_rsm.storage.files import RealFiles
from paxos_rsm.storage.identity import Identity, read_identity
from paxos_rsm.storage.restore import write_backup
from tests.unit.cli.helpers import run
from tests.unit.storage.helpers import backup_bytes

STORE = "paxos_rsm.machines.kv.machine:KeyValueMachine"
THREE = "n1=http://h1:2380,n2=http://h2:2380,n3=http://h3:2380"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Of a store at revision 4 with two keys."""
    machine = KeyValueMachine(KvCodec())
    for key in (b"a", b"b", b"a"):
        machine.execute(Put(key, b"value"))
    path = tmp_path / "backup.db"
    file = RealFiles().create(str(path), 0)
    write_backup(
        file, BackupHead(0, 0xC1, 0x31, 17, machine.revision, STORE, len(machine)), machine.snapshot()
    )
    file.close()
    return path


def identity_in(directory: Path) -> Identity:
    found = read_identity(RealFiles(), str(directory))
    assert found is not None
    return found


def restored(directory: Path, identity: Identity) -> KeyValueMachine:
    """The store that a server on the directory begins with."""
    opened = DataDirectory.open(
        directory,
        RealFiles(),
        cluster_id=identity.cluster_id,
        member_id=identity.member_id,
        name=identity.name,
        draw_bits=lambda bits: 1,
    )
    initial = opened.initial()
    assert initial is not None
    machine = KeyValueMachine(KvCodec())
    machine.restore(initial.slices)
    opened.close()
    return machine


class TestStatus:
    def test_in_each_form(self, backup: Path) -> None:
        data = backup.read_bytes()
        digest = hashlib.sha256(data[:-32]).hexdigest()
        simple = run("snapshot", "status", str(backup))
        assert (simple.exit_code, simple.stdout) == (0, f"{digest[:8]}, 4, 2, {len(data) / 1024:.1f} KiB\n")
        shown = json.loads(run("snapshot", "status", str(backup), "-w", "json").stdout)
        assert shown == {
            "hash": int(digest[:8], 16),
            "revision": 4,
            "totalKey": 2,
            "totalSize": len(data),
            "sha256": digest,
            "version": 2,
            "machine": STORE,
            "applied_slot": 17,
            "cluster_id": "c1",
            "member_id": "31",
        }
        table = run("snapshot", "status", str(backup), "-w", "table").stdout
        assert all(word in table for word in ("hash", "revision", "total keys", "total size", digest[:8]))
        fields = run("snapshot", "status", str(backup), "-w", "fields").stdout
        assert '"Revision" : 4\n"Keys" : 2\n' in fields

    def test_a_file_that_is_ours_to_read_only(self, backup: Path) -> None:
        backup.chmod(0o400)
        assert run("snapshot", "status", str(backup)).exit_code == 0

    def test_another_machines_state_has_no_keys(self, tmp_path: Path) -> None:
        head = BackupHead(0, 1, 2, 3, 0, "counting:Counter")
        file = RealFiles().create(str(tmp_path / "b"), 0)
        write_backup(file, head, [b"7"])
        assert ", 0, -, " in run("snapshot", "status", str(tmp_path / "b")).stdout
        assert (
            json.loads(run("snapshot", "status", str(tmp_path / "b"), "-w", "json").stdout)["totalKey"]
            is None
        )

    @pytest.mark.parametrize("change", ["flip", "cut", "grow", "other"])
    def test_a_damaged_one_is_one_line(self, backup: Path, change: str) -> None:
        data = backup.read_bytes()
        flipped = data[:600] + bytes([data[600] ^ 1]) + data[601:]
        changed = {"flip": flipped, "cut": data[:-1], "grow": data + b"x", "other": b"SQLite"}[change]
        backup.write_bytes(changed)
        result = run("snapshot", "status", str(backup))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: the backup {backup} is damaged: ")
        assert result.stderr.count("\n") == 1

    def test_a_newer_format_is_named(self, backup: Path) -> None:
        backup.write_bytes(backup.read_bytes().replace(b"snapshot 2", b"snapshot 9", 1))
        result = run("snapshot", "status", str(backup))
        assert result.exit_code == 1
        assert "has format 9, and this version of paxos_rsm knows the formats up to 2" in result.stderr


class TestRestore:
    def test_a_cluster_of_one(self, backup: Path, tmp_path: Path) -> None:
        directory = tmp_path / "d"
        result = run("snapshot", "restore", str(backup), "--data-dir", str(directory))
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"{directory} is the data directory of default, member ")
        identity = identity_in(directory)
        sha256 = backup.read_bytes()[-32:].hex()
        assert (identity.restored_from, identity.boot_count, identity.joined) == (sha256, 0, False)
        assert (
            identity.cluster_id == ServerConfig(restored_from=sha256).cluster_id != ServerConfig().cluster_id
        )
        machine = restored(directory, identity)
        assert (machine.revision, len(machine)) == (4, 2)

    def test_members_of_the_same_file_are_of_one_cluster(self, backup: Path, tmp_path: Path) -> None:
        identities = {}
        for name in ("n1", "n2", "n3"):
            args = ("--name", name, "--data-dir", str(tmp_path / name), "--initial-cluster", THREE)
            result = run("snapshot", "restore", str(backup), *args, "-w", "json")
            assert result.exit_code == 0, result.stderr
            shown = json.loads(result.stdout)
            identities[name] = identity = identity_in(tmp_path / name)
            assert shown["cluster_id"] == f"{identity.cluster_id:x}"
            assert (shown["member_id"], shown["revision"]) == (f"{identity.member_id:x}", 4)
        assert len({each.cluster_id for each in identities.values()}) == 1
        assert len({each.member_id for each in identities.values()}) == 3
        assert len({each.incarnation for each in identities.values()}) == 3

    def test_members_of_different_files_are_not(self, backup: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.db"
        other.write_bytes(backup_bytes([b"x"], STORE))
        ids = set()
        for number, file in enumerate((backup, other)):
            directory = tmp_path / f"d{number}"
            assert run("snapshot", "restore", str(file), "--data-dir", str(directory)).exit_code == 0
            ids.add(identity_in(directory).cluster_id)
        assert len(ids) == 2

    def test_the_environment_and_the_servers_file_count(self, backup: Path, tmp_path: Path) -> None:
        settings = tmp_path / "n2.toml"
        settings.write_text(f'name = "n2"\ninitial-cluster = "{THREE}"\nlog-level = "debug"\n')
        env = {"PAXOS_RSM_DATA_DIR": str(tmp_path / "d"), "PAXOS_RSM_INITIAL_CLUSTER_TOKEN": "mine"}
        result = run("snapshot", "restore", str(backup), "--config-file", str(settings), env=env)
        assert result.exit_code == 0, result.stderr
        assert "restore the other 2 from the same file" in result.stdout
        identity = identity_in(tmp_path / "d")
        plain = ServerConfig(name="n2", initial_cluster=THREE, initial_cluster_token="mine")
        assert (identity.name, identity.member_id) == ("n2", plain.member_id)

    def test_a_raised_revision(self, backup: Path, tmp_path: Path) -> None:
        args = ("--bump-revision", "1000", "--mark-compacted")
        ids = set()
        for name in ("one", "two"):
            result = run("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / name), *args)
            assert result.exit_code == 0, result.stderr
            identity = identity_in(tmp_path / name)
            machine = restored(tmp_path / name, identity)
            assert (machine.revision, machine.compacted_revision, len(machine)) == (1_004, 1_004, 2)
            ids.add(identity.cluster_id)
        plain = run("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "plain"))
        assert plain.exit_code == 0
        # Members that were restored with another revision are not of one cluster either.
        assert len(ids | {identity_in(tmp_path / "plain").cluster_id}) == 2

    @pytest.mark.parametrize(
        "args", [("--bump-revision", "5"), ("--mark-compacted",), ("--bump-revision", "0")]
    )
    def test_half_of_a_raise_is_refused(self, backup: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
        result = run("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "d"), *args)
        assert result.exit_code == 128
        assert not (tmp_path / "d").exists()

    def test_another_machine_has_no_revision_to_raise(self, tmp_path: Path) -> None:
        file = tmp_path / "b"
        file.write_bytes(backup_bytes([b"x"], "counting:Counter"))
        args = ("--data-dir", str(tmp_path / "d"), "--bump-revision", "5", "--mark-compacted")
        result = run("snapshot", "restore", str(file), *args)
        assert result.exit_code == 128
        assert "the state of counting:Counter, which has no revisions" in result.stderr
        assert not (tmp_path / "d").exists()

    def test_the_state_of_another_machine_is_restored_as_it_is(self, tmp_path: Path) -> None:
        file = tmp_path / "b"
        file.write_bytes(backup_bytes([b"x"], "counting:Counter"))
        assert run("snapshot", "restore", str(file), "--data-dir", str(tmp_path / "d")).exit_code == 0
        assert (tmp_path / "d" / "initial").read_bytes() == file.read_bytes()

    def test_format_1_is_for_the_store_only(self, tmp_path: Path) -> None:
        file = tmp_path / "b"
        for machine, code in ((STORE, 0), ("counting:Counter", 1)):
            data = backup_bytes([b"x"], machine).replace(b"snapshot 2", b"snapshot 1", 1)
            file.write_bytes(data[:-32] + hashlib.sha256(data[:-32]).digest())
            result = run("snapshot", "restore", str(file), "--data-dir", str(tmp_path / f"d{code}"))
            assert result.exit_code == code
        assert "has format 1" in result.stderr

    def test_a_damaged_file_leaves_nothing(self, backup: Path, tmp_path: Path) -> None:
        with backup.open("r+b") as file:
            file.seek(HEAD_BYTES + 9)
            file.write(b"changed")
        result = run("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "d"))
        assert result.exit_code == 1
        assert "does not match the checksum at its end" in result.stderr
        assert not (tmp_path / "d").exists()

    def test_a_directory_that_is_not_empty_is_left_alone(self, backup: Path, tmp_path: Path) -> None:
        directory = tmp_path / "d"
        directory.mkdir()
        (directory / "mine").write_text("keep")
        result = run("snapshot", "restore", str(backup), "--data-dir", str(directory))
        assert result.exit_code == 1
        assert f"{directory} is not empty: it holds mine" in result.stderr
        assert os.listdir(directory) == ["mine"]

    def test_bad_flags_are_the_servers_sentences(self, backup: Path, tmp_path: Path) -> None:
        args = ("--name", "n9", "--initial-cluster", THREE, "--data-dir", str(tmp_path / "d"))
        result = run("snapshot", "restore", str(backup), *args)
        assert result.exit_code == 128
        assert "not this member, --name n9" in result.stderr
        assert run("snapshot", "restore", str(tmp_path / "none")).exit_code == 128
