"""Who made the revisions that nobody acknowledged: asked of the store itself, which keeps every revision.

A write of unknown outcome may have taken effect, at any revision after the highest that anybody had been told when it
was called. With hundreds of such writes and hundreds of unexplained revisions (*gaps*), a checker that tries who made
what does not come to an end. So, when all is over, each gap is looked at: every key that an open write was about is
read as of that revision. Where the key was written just then, the read tells by whom, since values are unique; where it
was deleted, the reads before and after tell. These reads become part of the history, and are checked as every other
answer: a store that made something up here would be caught.

A gap at which no key that it could be about was touched stays one; that is for the checker to say.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paxos_rsm.client import AsyncClient
from paxos_rsm.client.types import GetResult, KeyValue
from paxos_rsm.testing.chaos.recorder import Recorder

__all__ = ["OpenWrite", "Revisions", "attribute", "kv_members"]

AT_ONCE = 1_000
READ_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OpenWrite:
    """A write of unknown outcome."""

    keys: tuple[str, ...]
    after: int
    """If it made a revision, then a higher one."""


@dataclass(slots=True)
class Revisions:
    """Which revisions were acknowledged to somebody, a bit each; and which writes may have made the others."""

    highest: int = 1
    """That anybody was told."""
    open_writes: list[OpenWrite] = field(default_factory=list)
    _made: bytearray = field(default_factory=bytearray)

    def told(self, revision: int, *, made: bool) -> None:
        """Somebody was answered with ``revision``, which the operation has ``made``, or has only seen."""
        self.highest = max(self.highest, revision)
        if made:
            index = revision >> 3
            if index >= len(self._made):
                self._made.extend(bytes(index + 4_096 - len(self._made)))
            self._made[index] |= 1 << (revision & 7)

    def was_acknowledged(self, revision: int) -> bool:
        """Whether somebody was told that he made it."""
        index = revision >> 3
        return index < len(self._made) and bool(self._made[index] >> (revision & 7) & 1)

    def gaps(self, last: int) -> list[int]:
        """The revisions up to ``last`` that nobody was told to have made. The empty store is at revision 1."""
        return [revision for revision in range(2, last + 1) if not self.was_acknowledged(revision)]


async def attribute(
    endpoints: Sequence[str], revisions: Revisions, last: int, recorder: Recorder
) -> tuple[int, int]:
    """Looks at every gap, and notes in the history the reads that explain one.

    Gives how many gaps there are and how many were explained. Nobody else may be writing. Raises ClientError.
    """
    gaps = revisions.gaps(last)
    explained: set[int] = set()
    async with AsyncClient(list(endpoints), timeout_s=READ_TIMEOUT_S) as client:
        wanted = [(key, gap) for gap in gaps for key in _keys_of(revisions.open_writes, gap)]
        for begin in range(0, len(wanted), AT_ONCE):
            part = wanted[begin : begin + AT_ONCE]
            found = await asyncio.gather(*(_look(client, key, gap, recorder) for key, gap in part))
            explained.update(gap for (_, gap), has in zip(part, found, strict=True) if has)
    return len(gaps), len(explained)


def _keys_of(open_writes: Iterable[OpenWrite], gap: int) -> list[str]:
    """Every key that an open write may have touched at that revision."""
    return list(dict.fromkeys(key for write in open_writes if write.after < gap for key in write.keys))


async def _look(client: AsyncClient, key: str, gap: int, recorder: Recorder) -> bool:
    """Whether the key was written or deleted at that revision; notes the reads that say so."""
    call_ms = recorder.now_ms()
    now = await client.get(key, revision=gap)
    if now.value is not None:
        if now.mod_revision != gap:
            return False
        _note(recorder, key, gap, now, call_ms)
        return True
    before = await client.get(key, revision=gap - 1)
    if before.value is None:
        return False
    _note(recorder, key, gap - 1, before, call_ms)
    _note(recorder, key, gap, now, call_ms)
    return True


def _note(recorder: Recorder, key: str, revision: int, found: GetResult, call_ms: float) -> None:
    output = {"revision": found.revision, "kv": kv_members(found)}
    recorder.operation(0, "get", key, {"revision": revision}, output, call_ms)


def kv_members(kv: GetResult | KeyValue) -> Mapping[str, Any] | None:
    """A key-value as a history has it (paxos_rsm/checker/store.py); None where the key is missing."""
    if kv.value is None:
        return None
    return {
        "value": kv.value.decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
    }
