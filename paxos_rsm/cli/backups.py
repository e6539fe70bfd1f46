"""``snapshot status`` and ``snapshot restore``: backup files, without any server.

``restore`` is run once for each member of the new cluster, with the same FILE and the same ``--initial-cluster``, on
the machine that will run it; after that the servers are started with the same flags. Which backup it was goes into the
cluster's id, so members that were restored from different ones never form a cluster. Every option has the name that it
has for ``paxos-rsm server``, and is looked for in the same environment variables and file.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import Settings, client_command, pass_settings
from paxos_rsm.cli.output import human_bytes, print_json, print_line, print_table
from paxos_rsm.cli.server import server_options
from paxos_rsm.config import ServerConfig, load_config

if TYPE_CHECKING:
    from paxos_rsm.storage.backup_format import Backup
    from paxos_rsm.storage.files import File

__all__ = ["restore", "status"]

STORE = "paxos_rsm.machines.kv.machine:KeyValueMachine"
MEMBER_OPTIONS = frozenset(
    ["name", "data_dir", "initial_cluster", "initial_cluster_token", "initial_advertise_peer_urls"]
)

STATUS_EPILOG = """\
\b
Examples:
  paxos-rsm snapshot status backup.db
  paxos-rsm snapshot status backup.db -w table
"""

RESTORE_EPILOG = """\
\b
Examples:
  paxos-rsm snapshot restore backup.db                     a cluster of one, into default.paxos
  paxos-rsm snapshot restore backup.db --name n1 --data-dir new/n1 \\
      --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380,n3=http://10.0.0.3:2380
  paxos-rsm snapshot restore backup.db --bump-revision 1000000000 --mark-compacted

Then start the server with the same --name, --data-dir, --initial-cluster and --initial-cluster-token; a cluster of
one that is not to use port 2380 with the same --initial-advertise-peer-urls.
"""

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple["File", "Backup"]]:
    """A backup file that has been checked whole. Raises StorageError where it does not hold, and OSError."""
    from paxos_rsm.storage.backup_format import check_backup
    from paxos_rsm.storage.files import open_read_only

    with contextlib.closing(open_read_only(str(path))) as file:
        yield file, check_backup(file, str(path))


# ---- status ------------------------------------------------------------------------------------------------


@client_command("status", epilog=STATUS_EPILOG)
@file_argument
@pass_settings
def status(settings: Settings, file: Path) -> None:
    """Check FILE whole, and show what is in it: hash, revision, keys, size.

    Keys and revision are those of the key-value store; another state machine has none.
    """
    with opened(file) as (_, backup):
        show_status(settings, backup)


def show_status(settings: Settings, backup: "Backup") -> None:
    """What etcd's command shows of a backup; ``-w json`` and ``-w fields`` show the rest as well."""
    head, digest = backup.head, backup.sha256[:8]
    keys = "" if head.keys is None else str(head.keys)
    if settings.write_out == "json":
        print_json(
            {
                "hash": int(digest, 16),
                "revision": head.revision,
                "totalKey": head.keys,
                "totalSize": backup.size,
                "sha256": backup.sha256,
                "version": head.version,
                "machine": head.machine,
                "applied_slot": head.applied_slot,
                "cluster_id": f"{head.cluster_id:x}",
                "member_id": f"{head.member_id:x}",
            }
        )
    elif settings.write_out == "fields":
        shown = {"Hash": int(digest, 16), "Revision": head.revision, "Keys": head.keys, "Size": backup.size}
        print_fields({**shown, "SHA256": backup.sha256, "Machine": head.machine})
    elif settings.write_out == "table":
        columns = ("hash", "revision", "total keys", "total size")
        print_table(columns, [(digest, str(head.revision), keys, human_bytes(backup.size))], columns[1:])
    else:
        print_line(f"{digest}, {head.revision}, {keys or '-'}, {human_bytes(backup.size)}")


# ---- restore -----------------------------------------------------------------------------------------------


@client_command("restore", epilog=RESTORE_EPILOG)
@file_argument
@server_options(lambda option: option.field in MEMBER_OPTIONS, environment=False)
@click.option(
    "--config-file",
    type=click.Path(path_type=Path),
    allow_from_autoenv=False,
    help="The server's TOML file; of its settings those above are used.",
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=1),
    metavar="N",
    help="Raise the store's revision by N, so that watchers and caches notice. Needs --mark-compacted.",
)
@click.option(
    "--mark-compacted",
    is_flag=True,
    help="Compact the store at the raised revision, so that old watches end. Needs --bump-revision.",
)
@pass_settings
def restore(
    settings: Settings,
    /,
    file: Path,
    config_file: Path | None,
    bump_revision: int | None,
    mark_compacted: bool,
    **flags: Any,
) -> None:
    """Make the data directory of one member of a new cluster, which begins with the state in FILE.

    No server takes part. The directory must be empty or not be there; nothing is changed where FILE is damaged. Run it
    for every member of --initial-cluster, with the same FILE and the same options, before any of them is started.
    """
    if (bump_revision is None) is mark_compacted:
        raise click.UsageError(
            "--bump-revision and --mark-compacted go together: revisions that never were must not be read"
        )
    config = load_config(flags, os.environ, config_file)
    with opened(file) as (source, backup):
        if backup.head.version == 1 and backup.head.machine != STORE:
            raise Failure(
                f"the backup {file} has format 1, which does not keep where a slice of the state ends, and "
                f"{backup.head.machine} may need to know; save it again with this version of paxos_rsm"
            )
        restored = _restore(config, source, backup, bump_revision or 0)
    _show_restored(settings, config, file, *restored)


def _restore(config: ServerConfig, source: "File", backup: "Backup", bump: int) -> tuple[int, int, "Backup"]:
    """The ids of cluster and member, and the state that the directory begins with."""
    from paxos_rsm.storage.files import RealFiles
    from paxos_rsm.storage.restore import copy_backup, restore_directory

    identity, initial = restore_directory(
        RealFiles(),
        config.directory,
        _bumped(source, backup, bump) if bump else copy_backup(source),
        name=config.name,
        member_id=config.member_id,
        cluster_id_of=lambda sha256: replace(config, restored_from=sha256).cluster_id,
        draw_bits=secrets.randbits,
    )
    return identity.cluster_id, identity.member_id, initial


def _bumped(source: "File", backup: "Backup", by: int) -> Callable[["File"], None]:
    """Fills a file with the backup of a store whose revision is raised."""
    if backup.head.machine != STORE:
        raise click.UsageError(
            f"--bump-revision: this is the state of {backup.head.machine}, which has no revisions; only the key-value "
            "store has"
        )
    from paxos_rsm.machines.kv.restore import bumped
    from paxos_rsm.storage.backup_format import read_slices
    from paxos_rsm.storage.restore import write_backup

    def fill(file: "File") -> None:
        store = bumped(read_slices(source, backup), by)
        write_backup(file, replace(backup.head, revision=store.revision, keys=store.keys), store.slices)

    return fill


def _show_restored(
    settings: Settings, config: ServerConfig, file: Path, cluster_id: int, member_id: int, initial: "Backup"
) -> None:
    shown: dict[str, object] = {
        "path": str(file),
        "data_dir": str(config.directory),
        "name": config.name,
        "cluster_id": f"{cluster_id:x}",
        "member_id": f"{member_id:x}",
        "revision": initial.head.revision,
        "totalKey": initial.head.keys,
        "sha256": initial.sha256,
    }
    if settings.write_out == "json":
        print_json(shown)
    elif settings.write_out == "fields":
        print_fields(shown)
    else:
        members = len(config.members)
        print_line(
            f"{config.directory} is the data directory of {config.name}, member {member_id:x} of the new cluster "
            f"{cluster_id:x}, and begins with {file}"
        )
        if members > 1:
            print_line(f"restore the other {members - 1} from the same file, then start all of them")
