"""``put``, ``get``, ``del``, ``cas``, ``compaction``: the key-value store, with the flags of etcd's command.

Plain output is what scripts read, so it is what etcd's command prints: ``get`` a line for each key and a line
for its value, nothing where there is none; ``put`` OK; ``del`` a count. Which keys a command speaks of is said in the
same way by ``get`` and ``del``: one KEY, KEY up to RANGE_END, ``--prefix``, or ``--from-key``.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from paxos_rsm.cli.connect import run
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import Settings, client_command, key_bytes, pass_settings, value_bytes
from paxos_rsm.cli.output import field_of, print_json, print_line, print_lines, print_table, text_of

if TYPE_CHECKING:
    from paxos_rsm.client import AsyncClient, KeyValue
    from paxos_rsm.client.commands import SortBy

__all__ = ["COMMANDS", "Bounds", "bounds_of"]

F = TypeVar("F", bound=Callable[..., Any])

TO_THE_END = b"\0"
"""As the end of a range: there is none."""

SORT_BY: "dict[str, SortBy]" = {
    "KEY": "key",
    "VALUE": "value",
    "VERSION": "version",
    "CREATE": "create_revision",
    "MODIFY": "mod_revision",
}


class Bounds(TypedDict, total=False):
    """Which keys, as the client's methods take it."""

    key: bytes
    end: bytes
    prefix: bytes


def bounds_of(key: str | None, range_end: str | None, prefix: bool, from_key: bool) -> Bounds:
    """Which keys a command line means. Raises click.UsageError where it means two things."""
    if prefix and from_key:
        raise click.UsageError("--prefix and --from-key cannot be used together")
    if range_end is not None and (prefix or from_key):
        raise click.UsageError("RANGE_END cannot be used with --prefix or --from-key")
    if key is None and not (prefix or from_key):
        raise click.UsageError("Missing argument 'KEY'; every key there is: --prefix without one")
    start = key_bytes(key or "")
    if prefix or (from_key and not start):
        return {"prefix": start}
    if from_key:
        return {"key": start, "end": TO_THE_END}
    return {"key": start} if range_end is None else {"key": start, "end": key_bytes(range_end)}


def _bounds_options(function: F) -> F:
    """Declares what :func:`bounds_of` takes."""
    for decorate in (
        click.option("--from-key", is_flag=True, help="Every key from KEY on."),
        click.option("--prefix", is_flag=True, help="Every key that starts with KEY."),
        click.argument("range_end", required=False),
        click.argument("key", required=False),
    ):
        function = decorate(function)
    return function


def _as_json(kv: "KeyValue", value: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {**field_of("key", kv.key)}
    if value:
        shown.update(field_of("value", kv.value))
    revisions = {"create_revision": kv.create_revision, "mod_revision": kv.mod_revision}
    return {**shown, **revisions, "version": kv.version, "lease": kv.lease}


def _print_kvs_table(kvs: "Iterable[KeyValue]", value: bool = True) -> None:
    columns = ["key", *(["value"] if value else []), "create revision", "mod revision", "version"]
    rows = [
        [
            text_of(kv.key),
            *([text_of(kv.value)] if value else []),
            *map(str, (kv.create_revision, kv.mod_revision, kv.version)),
        ]
        for kv in kvs
    ]
    print_table(columns, rows, right=columns[-3:])


def _lines_of(kvs: "Iterable[KeyValue]") -> Iterable[bytes]:
    for kv in kvs:
        yield kv.key
        yield kv.value


PUT_EPILOG = """\
\b
Examples:
  paxos-rsm put greeting hello
  paxos-rsm put config < config.toml              the value from standard input
  paxos-rsm put --prev-kv greeting hi             and what stood there before
  paxos-rsm put -- temperature -5                 a value that begins with a dash
"""


@client_command("put", epilog=PUT_EPILOG)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--prev-kv", is_flag=True, help="Also print what stood there before.")
@pass_settings
def put(settings: Settings, key: str, value: str | None, prev_kv: bool) -> None:
    """Write KEY. Prints OK once the write is durable on a majority of the servers.

    Without VALUE, the value is all of standard input.
    """
    data = value_bytes(value)
    result = run(settings, lambda client: client.put(key_bytes(key), data, prev_kv=prev_kv))
    if settings.write_out == "json":
        before = {"prev_kv": result.prev and _as_json(result.prev)} if prev_kv else {}
        print_json({"revision": result.revision, **before})
        return
    print_line("OK")
    if result.prev is not None:
        print_lines(_lines_of([result.prev]))


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

In JSON, a key or a value that is no UTF-8 is in base64, and "value_encoding": "base64" says so.
"""


@client_command("get", epilog=GET_EPILOG)
@_bounds_options
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
@click.option("--keys-only", is_flag=True, help="Print keys without their values.")
@click.option("--count-only", is_flag=True, help="Print how many keys there are.")
@click.option("--print-value-only", is_flag=True, help="Print values without their keys.")
@click.option(
    "--consistency",
    type=click.Choice(["l", "s"]),
    default="l",
    show_default=True,
    help="Linearizable, or serializable: at once, from a state that may be stale.",
)
@pass_settings
def get(
    settings: Settings,
    key: str | None,
    range_end: str | None,
    prefix: bool,
    from_key: bool,
    rev: int,
    limit: int,
    order: str | None,
    sort_by: str | None,
    keys_only: bool,
    count_only: bool,
    print_value_only: bool,
    consistency: str,
) -> None:
    """Read KEY, or the keys from KEY up to RANGE_END.

    Prints a line with the key and a line with its value; nothing where there is none, which is no error.
    """
    if keys_only and print_value_only:
        raise click.UsageError("--keys-only and --print-value-only leave nothing to print")
    bounds = bounds_of(key, range_end, prefix, from_key)

    result = run(
        settings,
        lambda client: client.range(
            **bounds,
            revision=rev,
            limit=limit,
            sort_by=SORT_BY[sort_by.upper()] if sort_by else None,
            descending=bool(order) and str(order).upper() == "DESCEND",
            keys_only=keys_only,
            count_only=count_only,
            serializable=consistency == "s",
        ),
    )
    if settings.write_out == "json":
        shown: dict[str, Any] = {"revision": result.revision, "count": result.count, "more": result.more}
        if consistency == "s":
            shown |= {"applied_slot": result.applied_slot, "leader_age_ms": result.leader_age_ms}
        if not count_only:
            shown["kvs"] = [_as_json(kv, value=not keys_only) for kv in result.kvs]
        print_json(shown)
    elif count_only:
        print_line(str(result.count))
    elif settings.write_out == "table":
        _print_kvs_table(result.kvs, value=not keys_only)
    elif keys_only:
        print_lines(kv.key for kv in result.kvs)
    elif print_value_only:
        print_lines(kv.value for kv in result.kvs)
    else:
        print_lines(_lines_of(result.kvs))


DEL_EPILOG = """\
\b
Examples:
  paxos-rsm del greeting
  paxos-rsm del --prefix app/ --prev-kv           and what was there
  paxos-rsm del a c                               from a up to c, c left out
  paxos-rsm del --prefix ""                       every key there is
"""


@client_command("del", epilog=DEL_EPILOG)
@_bounds_options
@click.option("--prev-kv", is_flag=True, help="Also print what was deleted.")
@pass_settings
def delete(
    settings: Settings, key: str | None, range_end: str | None, prefix: bool, from_key: bool, prev_kv: bool
) -> None:
    """Delete KEY, or the keys from KEY up to RANGE_END. Prints how many there were."""
    if key is None:
        raise click.UsageError("Missing argument 'KEY'; to delete every key there is: --prefix \"\"")
    bounds = bounds_of(key, range_end, prefix, from_key)

    async def work(client: "AsyncClient") -> tuple[int, int, list["KeyValue"]]:
        from paxos_rsm.client import Op, RangeResult

        reads = [Op.range(**bounds)] if prev_kv else []
        done = await client.txn([], [*reads, Op.delete(**bounds)])
        before = [kv for response in done.responses if isinstance(response, RangeResult) for kv in response]
        return sum(each for each in done.responses if isinstance(each, int)), done.revision, before

    deleted, revision, before = run(settings, work)
    if settings.write_out == "json":
        previous = {"prev_kvs": [_as_json(kv) for kv in before]} if prev_kv else {}
        print_json({"deleted": deleted, "revision": revision, **previous})
        return
    print_line(str(deleted))
    if settings.write_out == "table" and prev_kv:
        _print_kvs_table(before)
    else:
        print_lines(_lines_of(before))


CAS_EPILOG = """\
\b
Examples:
  paxos-rsm cas owner me you                      you, if it is me
  paxos-rsm cas --absent owner me                 me, if nobody is
  paxos-rsm cas --absent lock "$HOST" && echo mine
"""


@client_command("cas", epilog=CAS_EPILOG)
@click.argument("key")
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
    elif succeeded:
        print_line("OK")
    if not succeeded:
        reason = "is there already" if old is None else f"does not hold {text_of(old)!r}"
        raise Failure(f"nothing was written: {text_of(key_bytes(key))!r} {reason}")


COMPACTION_EPILOG = """\
\b
Examples:
  paxos-rsm compaction 1000
  paxos-rsm compaction $(paxos-rsm get --prefix --count-only -w json | jq .revision)
"""


@client_command("compaction", epilog=COMPACTION_EPILOG)
@click.argument("revision", type=click.IntRange(0))
@pass_settings
def compaction(settings: Settings, revision: int) -> None:
    """Forget what was overwritten or deleted before REVISION.

    It cannot be read any more after that; the keys as they are stay.
    """
    run(settings, lambda client: client.compact(revision))
    if settings.write_out == "json":
        print_json({"compacted": revision})
    else:
        print_line(f"compacted revision {revision}")


COMMANDS = {"put": put, "get": get, "del": delete, "cas": cas, "compaction": compaction}
