"""Any mixture of writes, compactions, watches, full gates and turns of the loop, against the plain definition.

A watch is given every revision that concerns it from its start on, once and in order, and either ends up at the present
or is told that what came next is compacted. Nothing else may ever come of it.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from paxos_rsm.machines.kv.store import Record
from paxos_rsm.machines.kv.types import Command, Compact, DeleteRange, Put, Txn
from paxos_rsm.server.watch_hub import Event, Gate, HubWatch, WatchHub
from tests.unit.server.test_watch_hub import Store, settled

KEYS = [b"a", b"ab", b"b", b"ba"]
RANGES = [(key, b"") for key in KEYS] + [
    (b"a", b"b"),
    (b"b", b"c"),
    (b"\0", b"\0"),
    (b"ab", b"ba"),
    (b"ab", b"\0"),
]
GATES = 2


@dataclass(eq=False)
class Model:
    """A watch, and what it was given."""

    key: bytes
    range_end: bytes
    start: int
    puts: bool
    deletes: bool
    given: list[tuple[int, list[Event]]] = field(default_factory=list)
    compact_revision: int | None = None
    watch: HubWatch | None = None
    cancelled: bool = False

    def events(self, watch: HubWatch, revision: int, events: Sequence[Event]) -> None:
        assert watch is self.watch
        assert not self.cancelled
        assert self.compact_revision is None
        assert watch.gate is not None
        assert not watch.gate.full
        self.given.append((revision, list(events)))

    def ended(self, watch: HubWatch, compact_revision: int, resume_revision: int, reason: str) -> None:
        assert watch is self.watch
        assert not self.cancelled
        assert (resume_revision, "compacted" in reason) == (0, True)
        self.compact_revision = compact_revision

    @property
    def is_live(self) -> bool:
        """At the present, and with room."""
        watch = self.watch
        assert watch is not None
        assert watch.gate is not None
        return watch.active and watch.is_caught_up and not watch.gate.full

    def concerns(self, record: Record) -> bool:
        key, version = record[0], record[3]
        within = key == self.key if not self.range_end else self.key <= key
        if self.range_end not in (b"", b"\0"):
            within = within and key < self.range_end
        return within and (self.puts if version else self.deletes)


@dataclass
class World:
    """The store, the hub, and everything that was ever written."""

    store: Store
    hub: WatchHub
    gates: list[Gate]
    history: list[Record] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)

    def turn(self, commands: list[Command]) -> None:
        machine = self.store.machine
        live = [each for each in self.models if each.is_live]
        for command in commands:
            before = machine.revision
            if isinstance(command, Compact):
                if machine.compacted_revision < command.revision <= before:
                    self.hub.compacting(command.revision)
                machine.execute(command)
                continue
            machine.execute(command)
            if machine.revision > before:
                self.history += machine.changes(before + 1, 1)
        for applied in self.store._applied:
            applied()
        # Whatever one turn writes and compacts: who is not late is never told to be.
        assert all(each.compact_revision is None for each in live)

    def watch(self, draw: random.Random) -> None:
        key, range_end = draw.choice(RANGES)
        now = self.store.machine.revision
        start = draw.randint(0, now + 3)
        model = Model(key, range_end, start or now + 1, draw.random() < 0.8, draw.random() < 0.8)
        gate = draw.choice(self.gates)
        model.watch = self.hub.watch(model, key, range_end, start, model.puts, model.deletes, True, gate=gate)
        self.models.append(model)

    def check(self, model: Model, *, settled: bool) -> None:
        wanted: dict[int, list[Record]] = {}
        for record in self.history:
            if record[2] >= model.start and model.concerns(record):
                wanted.setdefault(record[2], []).append(record)
        whole = list(wanted.items())
        given_now = [(revision, [event.record for event in events]) for revision, events in model.given]
        assert given_now == whole[: len(given_now)], "in order, once, nothing left out"
        for _, events in model.given:
            for event in events:
                older = [r for r in self.history if r[0] == event.record[0] and r[2] < event.record[2]]
                replaced = older[-1] if older and older[-1][3] else None
                assert event.previous in (replaced, None)
        missing = whole[len(given_now) :]
        if model.compact_revision is not None:
            compacted = self.store.machine.compacted_revision
            assert model.compact_revision <= compacted + 1
            assert (
                not missing or missing[0][0] < model.compact_revision or model.start < model.compact_revision
            )
        elif settled and not model.cancelled:
            assert not missing


def command(draw: random.Random, revision: int) -> Command:
    kind = draw.randrange(10)
    if kind < 6:
        return Put(draw.choice(KEYS), draw.choice([b"1", b"2"]))
    if kind < 7:
        return DeleteRange(draw.choice(KEYS))
    if kind < 8:
        return DeleteRange(b"\0", b"\0")
    if kind < 9:
        return Txn(success=(Put(b"a", b"3"), Put(b"ba", b"4"), DeleteRange(b"ab")), failure=())
    return Compact(draw.randint(1, revision + 2))


@pytest.mark.parametrize("block", range(4))
async def test_every_watch_is_given_what_it_should_be(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        try:
            await one_run(random.Random(seed))
        except BaseException as error:
            error.add_note(f"with seed {seed}")
            raise


async def one_run(draw: random.Random) -> None:
    """Some sixty things that happen, and then whatever is left to do."""
    store = Store()
    hub = store.hub(slice_records=draw.randint(1, 5), slice_deliveries=draw.randint(1, 5))
    world = World(store, hub, [Gate() for _ in range(GATES)])
    for _ in range(60):
        act(draw, world)
        if draw.random() < 0.5:
            await asyncio.sleep(0)
        for model in world.models:
            world.check(model, settled=False)
    for gate in world.gates:
        hub.open(gate)
    await settled(hub)
    for model in world.models:
        world.check(model, settled=True)
        if model.compact_revision is None and not model.cancelled:
            assert model.watch is not None
            assert model.watch.is_caught_up
    assert len(hub) == sum(each.compact_revision is None and not each.cancelled for each in world.models)


def act(draw: random.Random, world: World) -> None:
    """One thing that happens."""
    kind = draw.randrange(16)
    gate = draw.choice(world.gates)
    if kind < 7:
        world.turn([command(draw, world.store.machine.revision) for _ in range(draw.randint(1, 6))])
    elif kind < 11:
        world.watch(draw)
    elif kind < 13:
        gate.full = True
    elif kind < 14:
        world.hub.open(gate)
    elif kind < 15:
        world.hub.reset()
    elif world.models:
        model = draw.choice(world.models)
        assert model.watch is not None
        model.cancelled = model.compact_revision is None
        model.watch.cancel()
