"""Keys of the store as completions of a word, at the prompt of ``shell`` and in bash, zsh and fish alike.

A server is asked, any, for what it knows itself: shortly and without quorum. Where nobody answers, nothing is offered.
"""

import asyncio
import os
import shlex

import click
from click.shell_completion import CompletionItem

from paxos_rsm.cli.direct import ask_any
from paxos_rsm.cli.options import Settings, key_bytes
from paxos_rsm.errors import ClientError

__all__ = ["complete_key"]

KEYS_SHOWN_MAX = 100
TIMEOUT_S = 0.5


def complete_key(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys that begin with ``incomplete``, but for those that would have to be quoted."""
    from paxos_rsm._proto import kv_pb2 as pb
    from paxos_rsm.cli.kv import bounds_of

    if key_bytes(incomplete) != incomplete.encode("utf-8", "surrogateescape"):
        return []  # arguments have another encoding here: what would be offered is not what would be typed
    key, range_end = bounds_of(incomplete, None, True, False)
    request = pb.RangeRequest(
        key=key, range_end=range_end, keys_only=True, serializable=True, limit=KEYS_SHOWN_MAX
    )
    given = ctx.ensure_object(Settings)
    settings = Settings(given.endpoints, command_timeout_s=TIMEOUT_S, dial_timeout_s=TIMEOUT_S)
    try:
        answer = asyncio.run(ask_any(settings, "KV/Range", request, pb.RangeResponse))
    except (ClientError, click.ClickException):
        return []
    names = [os.fsdecode(kv.key) for kv in answer.kvs]
    return [CompletionItem(name, key=True) for name in names if shlex.quote(name) == name]
