"""``snapshot save``: the state of one server, as a file; its ``status`` and ``restore`` are in backups.py.

The server streams it, and ends with the SHA-256 of what it sent. What arrives is written to ``FILE.PID.part``, checked,
synced, and only then given its name: a FILE that is there is whole, whoever else writes one at the same time. The
checksum stays at its end, so that whoever reads it later can check it again.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import click

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.backups import restore, status
from paxos_rsm.cli.connect import dial
from paxos_rsm.cli.direct import PACKAGE, ask_each, channel_to, error_from
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import Settings, client_command, client_group, pass_settings
from paxos_rsm.cli.output import print_json, print_line
from paxos_rsm.errors import ClientError, Unavailable

__all__ = ["COMMANDS", "save_to", "snapshot"]

CHECKSUM_BYTES = hashlib.sha256().digest_size
METHOD = "Maintenance/Snapshot"

EPILOG = """\
\b
Examples:
  paxos-rsm snapshot save backup.db
  paxos-rsm snapshot save backup.db --endpoints 127.0.0.1:2381
"""

GROUP_EPILOG = """\
\b
Examples:
  paxos-rsm snapshot save backup.db
  paxos-rsm snapshot status backup.db -w table
  paxos-rsm snapshot restore backup.db --name n1 --data-dir new/n1
"""


@client_group("snapshot", epilog=GROUP_EPILOG)
def snapshot() -> None:
    """Backups of the whole state, and new clusters made from them."""


@client_command("save", epilog=EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_settings
def save(settings: Settings, file: Path) -> None:
    """Write the state of a server to FILE.

    It is that of the first of --endpoints that answers, at one point in time. --command-timeout is how long to wait for
    the next piece. The state is all there is in FILE: no sessions, no members, no votes; any new cluster can begin
    with it (snapshot restore).
    """
    saved = asyncio.run(_save(settings, file))
    if settings.write_out == "json":
        print_json(saved)
    elif settings.write_out == "fields":
        print_fields(saved)
    else:
        print_line(f"Snapshot saved at {file}")


@client_command("take")
@pass_settings
def take(settings: Settings) -> None:
    """Let each of --endpoints take a snapshot on its own disk, and drop the log before it.

    They do so by themselves, by --snapshot-log-bytes; this is for before a planned restart.
    """
    from paxos_rsm._proto import admin_pb2 as pb

    asked = ask_each(
        settings.endpoints,
        "Admin/TakeSnapshot",
        pb.TakeSnapshotRequest(),
        pb.TakeSnapshotResponse,
        settings.command_timeout_s,
    )
    failed: Failure | None = None
    for endpoint, answer in zip(settings.endpoints, asyncio.run(asked), strict=True):
        if isinstance(answer, ClientError):
            failed = failed or Failure(_named(endpoint, answer))
            continue
        taken = {
            "endpoint": endpoint,
            "slot": answer.slot,
            "bytes": answer.bytes,
            "log_bytes": answer.log_bytes,
        }
        if settings.write_out == "json":
            print_json(taken)
        elif settings.write_out == "fields":
            print_fields(taken)
        else:
            new = f"{answer.bytes} bytes" if answer.bytes else "nothing was applied since"
            print_line(f"{endpoint}: snapshot of slot {answer.slot} ({new}); log {answer.log_bytes} bytes")
    if failed is not None:
        raise failed


async def _save(settings: Settings, file: Path) -> dict[str, object]:
    await dial(settings.endpoints, settings.dial_timeout_s)
    why: list[str] = []
    for endpoint in settings.endpoints:
        try:
            size, checksum = await save_to(file, _blobs(endpoint, settings.command_timeout_s))
        except Unavailable as error:
            why.append(_named(endpoint, error))
        except OSError as error:
            raise Failure(
                f"{file} cannot be written: {error.strerror or error}; no backup was saved"
            ) from error
        else:
            return {"path": str(file), "endpoint": endpoint, "size": size, "sha256": checksum}
    raise Failure("; ".join(why) or "there is no endpoint to ask")


def _named(endpoint: str, error: ClientError) -> str:
    """What an endpoint said, and which one."""
    text = str(error)
    return text if endpoint in text else f"{endpoint}: {text}"


async def _blobs(endpoint: str, timeout_s: float) -> AsyncIterator[bytes]:
    """The pieces that one server streams. Raises ClientError, in its words, and where a piece is too long in coming."""
    import grpc

    from paxos_rsm._proto import maintenance_pb2

    async with channel_to(endpoint) as channel:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{PACKAGE}.{METHOD}")
        call = method(maintenance_pb2.SnapshotRequest().SerializeToString())
        try:
            while True:
                async with asyncio.timeout(timeout_s):
                    data = await call.read()
                if not isinstance(data, bytes):  # the end of the stream
                    return
                yield maintenance_pb2.SnapshotResponse.FromString(data).blob
        except TimeoutError:
            raise Unavailable(f"{endpoint}: the snapshot went on no further for {timeout_s:.3g} s") from None
        except grpc.aio.AioRpcError as error:
            raise error_from(error, endpoint, METHOD, timeout_s) from None
        finally:
            call.cancel()


async def save_to(file: Path, blobs: AsyncIterator[bytes]) -> tuple[int, str]:
    """Writes what ``blobs`` give to ``file``, all or nothing; returns its size in bytes and its checksum.

    Raises Failure where the checksum at the end is not that of what came before it.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        # All that the cluster holds: for nobody else to read.
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
        ) as out:
            size, checksum = await _write(out, blobs)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size, checksum


async def _write(out: BinaryIO, blobs: AsyncIterator[bytes]) -> tuple[int, str]:
    digest = hashlib.sha256()
    held = b""  # may be the checksum, or a part of it
    size = 0
    async for blob in blobs:
        held += blob
        digest.update(held[:-CHECKSUM_BYTES])
        held = held[-CHECKSUM_BYTES:]
        out.write(blob)
        size += len(blob)
    if len(held) < CHECKSUM_BYTES or digest.digest() != held:
        raise Failure(
            f"the snapshot that came ({size} bytes) does not have the checksum at its end: it is not whole"
        )
    return size, held.hex()


snapshot.add_command(save)
snapshot.add_command(take)
snapshot.add_command(status)
snapshot.add_command(restore)

COMMANDS = {"snapshot": snapshot}
