"""``put``, ``get``, ``del``, ``cas``, ``compaction``: the key-value store, with the flags of etcd's command.

Which keys a command speaks of is said in the same way everywhere: one KEY, KEY up to RANGE_END, ``--prefix``, or
``--from-key``. The flags become a request by the functions ``put_request``, ``range_request`` and ``delete_request``,
which a line of a transaction (txn.py) goes through too.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from paxos_rsm.cli.answers import Style, print_fields, show
from paxos_rsm.cli.connect import run
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.key_completion import complete_key
from paxos_rsm.cli.lease_ids import LeaseIdType
from paxos_rsm.cli.options import Settings, client_command, key_bytes, pass_settings, value_bytes
from paxos_rsm.cli.output import print_json, print_line, text_of
from paxos_rsm.cli.store import ask_store, range_to_pb, work

if TYPE_CHECKING:
    from paxos_rsm._proto import kv_pb2 as pb
    from paxos_rsm.client import AsyncClient, RangeResult
    from paxos_rsm.client.commands import SortBy

__all__ = [
    "COMMANDS",
    "bounds_of",
    "bounds_options",
    "delete_request",
    "put_request",
    "range_request",
]

F = TypeVar("F", bound=Callable[..., Any])

TO_THE_END = b"\0"
"""As the end of a range: there is none."""
FIRST_KEY = b"\0"

SORT_BY: "dict[str, tuple[SortBy, str]]" = {
    "KEY": ("key", "KEY"),
    "VALUE": ("value", "VALUE"),
    "VERSION": ("version", "VERSION"),
    "CREATE": ("create_revision", "CREATE"),
    "MODIFY": ("mod_revision", "MOD"),
}
"""As etcd's command names it: as the client does, and as the wire does."""


def bounds_of(key: str | None, range_end: str | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Key and range end, as the wire has them. Raises click.UsageError where a command line means two things."""
    from paxos_rsm.client.commands import prefix_end

    if prefix and from_key:
        raise click.UsageError("--prefix and --from-key cannot be used together")
    if range_end is not None and (prefix or from_key):
        raise click.UsageError("RANGE_END cannot be used with --prefix or --from-key")
    if key is None and not (prefix or from_key):
        raise click.UsageError("Missing argument 'KEY'; every key there is: --prefix without one")
    start = key_bytes(key or "")
    if prefix:
        return (start, prefix_end(start)) if start else (FIRST_KEY, TO_THE_END)
    if from_key:
        return start or FIRST_KEY, TO_THE_END
    return start, b"" if range_end is None else key_bytes(range_end)


def bounds_options(function: F) -> F:
    """Declares what :func:`bounds_of` takes."""
    for decorate in (
        click.option("--from-key", is_flag=True, help="Every key from KEY on."),
        click.option("--prefix", is_flag=True, help="Every key that starts with KEY."),
        click.argument("range_end", required=False, shell_complete=complete_key),
        click.argument("key", required=False, shell_complete=complete_key),
    ):
        function = decorate(function)
    return function


def _bounds(flags: Mapping[str, Any]) -> tuple[bytes, bytes]:
    return bounds_of(flags["key"], flags["range_end"], flags["prefix"], flags["from_key"])


# ---- put -------------------------------------------------------------------------------------------------

PUT_EPILOG = """\
\b
Examples:
  paxos-rsm put greeting hello
  paxos-rsm put config < config.toml              the value from standard input
  paxos-rsm put --prev-kv greeting hi             and what stood there before
  paxos-rsm put worker/7 up --lease 694d77aa9e38260f    it goes with its lease
  paxos-rsm put greeting --ignore-value --lease 0       out of its lease, the value as it is
  paxos-rsm put -- temperature -5                 a value that begins with a dash
"""


def put_request(flags: Mapping[str, Any], value: bytes) -> "pb.PutRequest":
    """A request from the flags of ``put``."""
    from paxos_rsm._proto import kv_pb2 as pb

    return pb.PutRequest(
        key=key_bytes(flags["key"]),
        value=value,
        lease=flags["lease"],
        prev_kv=flags["prev_kv"],
        ignore_value=flags["ignore_value"],
        ignore_lease=flags["ignore_lease"],
    )


@client_command("put", epilog=PUT_EPILOG)
@click.argument("key", shell_complete=complete_key)
@click.argument("value", required=False)
@click.option("--lease", type=LeaseIdType(), default=0, help="The lease to bind it to, in hexadecimal.")
@click.option("--prev-kv", is_flag=True, help="Also print what stood there before.")
@click.option("--ignore-value", is_flag=True, help="Leave the value as it is.")
@click.option("--ignore-lease", is_flag=True, help="Leave it bound to the lease that it has.")
@pass_settings
def put(settings: Settings, /, **flags: Any) -> None:
    """Write KEY. Prints OK once the write is durable on a majority of the servers.

    Without VALUE, the value is all of standard input.
    """
    from paxos_rsm._proto import kv_pb2 as pb

    if flags["ignore_value"] and flags["value"] is not None:
        raise click.UsageError("--ignore-value leaves the value as it is: give none")
    if flags["ignore_lease"] and flags["lease"]:
        raise click.UsageError("--ignore-lease leaves the lease as it is: give no --lease")
    value = b"" if flags["ignore_value"] else value_bytes(flags["value"])
    show(settings, ask_store(settings, pb.KvCommand(put=put_request(flags, value))))


# ---- get -------------------------------------------------------------------------------------------------

GET_EPILOG = """\
\b
Examples:
  paxos-rsm get greeting
  paxos-rsm get greeting --print-value-only
  paxos-rsm get greeting --rev 4                  as it was at an older revision
  paxos-rsm get --prefix app/ --keys-only
  paxos-rsm get --prefix --count-only             how many keys there are
  paxos-rsm get --prefix app/ --sort-by MODIFY --order DESCEND --limit 10
  paxos-rsm get a c                               from a up to c, c left out
  paxos-rsm get greeting --consistency s          at once, perhaps stale
  paxos-rsm get greeting -w json | jq -r '.kvs[].value_text'

In JSON, keys and values are in base64, as from etcd's command; those that are text stand beside it as such.
"""


def range_request(flags: Mapping[str, Any]) -> "pb.RangeRequest":
    """A request from the flags of ``get``."""
    from paxos_rsm._proto import kv_pb2 as pb

    key, range_end = _bounds(flags)
    sort_by, order = flags["sort_by"], flags["order"]
    sorted_at_all = order is not None or sort_by is not None
    return pb.RangeRequest(
        key=key,
        range_end=range_end,
        limit=flags["limit"],
        revision=flags["rev"],
        sort_order=pb.RangeRequest.SortOrder.Value((order or "ASCEND") if sorted_at_all else "NONE"),
        sort_target=pb.RangeRequest.SortTarget.Value(SORT_BY[sort_by][1] if sort_by else "KEY"),
        serializable=flags["consistency"] == "s",
        keys_only=flags["keys_only"],
        count_only=flags["count_only"],
    )


@client_command("get", epilog=GET_EPILOG)
@bounds_options
@click.option("--rev", type=click.IntRange(0), default=0, metavar="REV", help="As of an older revision.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="At most so many keys.")
@click.option(
    "--order",
    type=click.Choice(["ASCEND", "DESCEND"], case_sensitive=False),
    metavar="ASCEND|DESCEND",
    help="Of the keys.",
)
@click.option(
    "--sort-by",
    type=click.Choice(list(SORT_BY), case_sensitive=False),
    metavar="|".join(SORT_BY),
    help="What to order by.",
)
@click.option("--keys-only", is_flag=True, help="Leave the values empty.")
@click.option("--count-only", is_flag=True, help="Print how many keys there are.")
@click.option("--print-value-only", is_flag=True, help="-w simple: print values without their keys.")
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    show_default=True,
    help="Linearizable, or serializable: at once, from a state that may be stale.",
)
@pass_settings
def get(settings: Settings, /, **flags: Any) -> None:
    """Read KEY, or the keys from KEY up to RANGE_END.

    Prints a line with the key and a line with its value; nothing where there is none, which is no error.
    """
    if flags["keys_only"] and flags["print_value_only"]:
        raise click.UsageError("--keys-only and --print-value-only leave nothing to print")
    if flags["print_value_only"] and settings.write_out not in (None, "simple"):
        raise click.UsageError("--print-value-only is for -w simple")
    paged = _may_be_large(flags)  # which also refuses, before anything is asked, what means two things
    found: list[RangeResult] = []

    async def read(client: "AsyncClient") -> "pb.RangeResponse":
        # Not as a bare query: the client also knows how fresh the answer is, and how to read in pages.
        result = await (_read_in_pages(client, flags) if paged else _read(client, flags))
        found.append(result)
        return range_to_pb(result)

    answer = work(settings, read)
    fresh = {}
    if flags["consistency"] == "s":
        fresh = {"applied_slot": found[0].applied_slot, "leader_age_ms": found[0].leader_age_ms}
    style = Style(
        hex=settings.hex,
        value_only=flags["print_value_only"],
        with_value=not flags["keys_only"],
        count_only=flags["count_only"],
    )
    show(settings, answer, style, **fresh)


async def _read(client: "AsyncClient", flags: Mapping[str, Any]) -> "RangeResult":
    key, range_end = _bounds(flags)
    sort_by = flags["sort_by"]
    return await client.range(
        key,
        range_end or None,
        limit=flags["limit"],
        revision=flags["rev"],
        sort_by=SORT_BY[sort_by][0] if sort_by else None,
        descending=flags["order"] == "DESCEND",
        keys_only=flags["keys_only"],
        count_only=flags["count_only"],
        serializable=flags["consistency"] == "s",
    )


def _may_be_large(flags: Mapping[str, Any]) -> bool:
    """Whether nothing bounds the answer, and it can be read in pages: in the order of keys, as of now."""
    range_end = _bounds(flags)[1]
    bounded = flags["limit"] or flags["count_only"] or not range_end
    return not (
        bounded or flags["rev"] or flags["consistency"] == "s" or flags["sort_by"] not in (None, "KEY")
    )


async def _read_in_pages(client: "AsyncClient", flags: Mapping[str, Any]) -> "RangeResult":
    """The whole range as it stands at one revision, in messages that no server has to hold a long time."""
    from paxos_rsm.client import RangeResult

    key, range_end = _bounds(flags)
    scan = client.scan(key, range_end, descending=flags["order"] == "DESCEND", keys_only=flags["keys_only"])
    kvs = tuple([kv async for kv in scan])
    return RangeResult(kvs, len(kvs), False, scan.revision)


# ---- del -------------------------------------------------------------------------------------------------

DEL_EPILOG = """\
\b
Examples:
  paxos-rsm del greeting
  paxos-rsm del --prefix app/ --prev-kv           and what was there
  paxos-rsm del a c                               from a up to c, c left out
  paxos-rsm del --prefix ""                       every key there is
"""


def delete_request(flags: Mapping[str, Any]) -> "pb.DeleteRangeRequest":
    """A request from the flags of ``del``."""
    from paxos_rsm._proto import kv_pb2 as pb

    if flags["key"] is None:
        raise click.UsageError("Missing argument 'KEY'; to delete every key there is: --prefix \"\"")
    key, range_end = _bounds(flags)
    return pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=flags["prev_kv"])


@client_command("del", epilog=DEL_EPILOG)
@bounds_options
@click.option("--prev-kv", is_flag=True, help="Also print what was deleted.")
@pass_settings
def delete(settings: Settings, /, **flags: Any) -> None:
    """Delete KEY, or the keys from KEY up to RANGE_END. Prints how many there were."""
    from paxos_rsm._proto import kv_pb2 as pb

    show(settings, ask_store(settings, pb.KvCommand(delete_range=delete_request(flags))))


# ---- cas, compaction -------------------------------------------------------------------------------------

CAS_EPILOG = """\
\b
Examples:
  paxos-rsm cas owner me you                      you, if it is me
  paxos-rsm cas --absent owner me                 me, if nobody is
  paxos-rsm cas --absent lock "$HOST" && echo mine
"""


@client_command("cas", epilog=CAS_EPILOG)
@click.argument("key", shell_complete=complete_key)
@click.argument("values", nargs=-1, metavar="[OLD] NEW")
@click.option("--absent", is_flag=True, help="In place of OLD: only where the key is missing.")
@pass_settings
def cas(settings: Settings, key: str, values: tuple[str, ...], absent: bool) -> None:
    """Write NEW to KEY if its value is OLD: compare and swap, at one point in time.

    Prints OK; exits 1, with a sentence, where the value is another one.
    """
    wanted = 1 if absent else 2
    if len(values) != wanted:
        expected = "KEY and NEW with --absent" if absent else "KEY, OLD and NEW, or --absent with KEY and NEW"
        raise click.UsageError(f"cas takes {expected}; {1 + len(values)} arguments were given")
    old = None if absent else key_bytes(values[0])
    new = key_bytes(values[-1])
    succeeded = run(settings, lambda client: client.compare_and_swap(key_bytes(key), old, new))
    if settings.write_out == "json":
        print_json({"succeeded": succeeded})
    elif settings.write_out == "fields":
        print_fields({"succeeded": succeeded})
    elif succeeded:
        print_line("OK")
    if not succeeded:
        reason = "is there already" if old is None else f"does not hold {text_of(old)!r}"
        raise Failure(f"nothing was written: {text_of(key_bytes(key))!r} {reason}")


COMPACTION_EPILOG = """\
\b
Examples:
  paxos-rsm compaction 1000
  paxos-rsm compaction $(paxos-rsm get --prefix --count-only -w json | jq .header.revision)
"""


@client_command("compaction", epilog=COMPACTION_EPILOG)
@click.argument("revision", type=click.IntRange(0))
@click.option("--physical", is_flag=True, help="Return only when the room is free again.")
@pass_settings
def compaction(settings: Settings, revision: int, physical: bool) -> None:
    """Forget what was overwritten or deleted before REVISION.

    It cannot be read any more after that; the keys as they are stay.
    """
    from paxos_rsm._proto import kv_pb2 as pb

    request = pb.CompactionRequest(revision=revision, physical=physical)
    answer = ask_store(settings, pb.KvCommand(compact=request))
    if settings.write_out in ("json", "fields"):
        show(settings, answer)
    else:
        print_line(f"compacted revision {revision}")


COMMANDS = {"put": put, "get": get, "del": delete, "cas": cas, "compaction": compaction}
