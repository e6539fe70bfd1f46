"""Hashes of the state: equal where revision and compaction are, different where a version differs, and in slices."""

import asyncio
from collections.abc import Iterable, Iterator

from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import COMPACTED, FUTURE_REVISION, Compact, DeleteRange, Put
from paxos_rsm.server.kv_hash import hash_at, hash_of, revision_error, snapshot_of


def machine_of(*commands: Put | DeleteRange | Compact) -> KeyValueMachine:
    machine = KeyValueMachine(KvCodec())
    for command in commands:
        machine.execute(command)
    return machine


HISTORY = (Put(b"a", b"1"), Put(b"b", b"2"), Put(b"a", b"3"), DeleteRange(b"b"), Put(b"c", b"4"))


async def test_servers_that_have_gone_further_agree_on_an_older_revision() -> None:
    behind, ahead = machine_of(*HISTORY[:3]), machine_of(*HISTORY)
    assert behind.revision == 4
    assert ahead.revision == 6
    for revision in (2, 3, 4):
        assert await hash_at(behind, revision) == await hash_at(ahead, revision)
    assert await hash_at(behind, 0) == await hash_at(ahead, 4) != await hash_at(ahead, 0)


async def test_each_revision_has_a_hash_of_its_own() -> None:
    machine = machine_of(*HISTORY)
    hashes = [await hash_at(machine, revision) for revision in range(1, 7)]
    assert len(set(hashes)) == 6


async def test_a_compaction_changes_the_hash_alike_everywhere() -> None:
    early = machine_of(*HISTORY[:3], Compact(3), *HISTORY[3:])
    late = machine_of(*HISTORY, Compact(3))
    restored = KeyValueMachine(KvCodec())
    restored.restore(late.snapshot())
    for revision in (4, 5, 6, 0):
        hashes = {await hash_at(machine, revision) for machine in (early, late, restored)}
        assert len(hashes) == 1
    assert await hash_at(late, 6) != await hash_at(machine_of(*HISTORY), 6)


async def test_a_value_that_differs_shows() -> None:
    good, bad = machine_of(Put(b"a", b"1"), Put(b"b", b"2")), machine_of(Put(b"a", b"1"), Put(b"b", b"3"))
    assert await hash_at(good, 2) == await hash_at(bad, 2)
    assert await hash_at(good, 3) != await hash_at(bad, 3)


def test_which_revisions_can_be_hashed_follows_etcd() -> None:
    machine = machine_of(*HISTORY, Compact(3))
    answers = {revision: revision_error(machine, revision) for revision in (-1, 0, 1, 3, 4, 6, 7)}
    assert answers == {-1: None, 0: None, 1: COMPACTED, 3: COMPACTED, 4: None, 6: None, 7: FUTURE_REVISION}


async def test_others_have_their_turn_and_what_they_write_does_not_show() -> None:
    puts = [Put(b"%05d" % number, b"v") for number in range(5_000)]
    machine, same = machine_of(*puts), machine_of(*puts)
    expected = await hash_at(same, 0)
    turns = 0

    async def write() -> None:
        nonlocal turns
        while True:
            machine.execute(Put(b"00000", b"%d" % turns))
            turns += 1
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    assert await hash_at(machine, 0) == expected
    writer.cancel()
    assert turns >= 5
    assert machine.revision == 5_001 + turns


async def test_how_pieces_are_cut_does_not_matter() -> None:
    assert await hash_of([b"ab", b"c"]) == await hash_of([b"a", b"bc"]) != await hash_of([b"ab"])


async def test_a_generator_is_read_at_once() -> None:
    class Lazy(KeyValueMachine):
        def snapshot(self) -> Iterator[bytes]:  # type: ignore[override]  # as a user may write it
            yield b"%d" % self.revision

    machine = Lazy(KvCodec())
    view: Iterable[bytes] = snapshot_of(machine)
    machine.execute(Put(b"a"))
    assert list(view) == [b"1"]
