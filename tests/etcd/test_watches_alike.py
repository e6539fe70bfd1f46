"""The same writes to a real etcd and to us, seen by the same watches: equal events, in equal order.

What a watch must see is computed from the naive model's list of every change, so that a stream that is silent is not
taken for one that agrees.
"""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import grpc
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paxos_rsm._proto import kv_pb2 as kv
from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.machines.kv.types import ALL_FROM, Command, Compact, Put
from tests.etcd.stores import DIFFERENT_HEADERS, Store
from tests.etcd.test_differential import LONG_GRANTS, LockStep
from tests.integration.raw import code_of
from tests.model.commands import DELETES, PLAIN_PUTS, PUTS, REVOKES, TXNS, placed, weighted
from tests.model.naive_store import NaiveStore, in_range

EXAMPLES = int(os.environ.get("ETCD_EXAMPLES", "60")) // 3
TIMEOUT_S = 60.0

WRITES = weighted((5, PLAIN_PUTS), (2, PUTS), (2, DELETES), (4, TXNS), (1, LONG_GRANTS), (1, REVOKES))

# Of each watch: key, range_end, how far back it starts (0: from now on), prev_kv, filters.
WATCHES = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"\0", b"c"]),
        st.sampled_from([b"", b"b", b"c", ALL_FROM]),
        st.integers(0, 6),
        st.booleans(),
        st.sampled_from([(), (), (), (0,), (1,)]),
    ).filter(lambda drawn: drawn[1] in (b"", ALL_FROM) or drawn[0] < drawn[1]),
    min_size=1,
    max_size=4,
)


class Stream:
    """One watch stream, and everything that came on it."""

    def __init__(self, store: Store) -> None:
        call = store.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
        )
        self._outgoing: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = call(iter(self._outgoing.get, None), wait_for_ready=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.events: dict[int, list[Any]] = {}

    def _read(self) -> None:
        try:
            for message in self._call:
                self._incoming.put(message)
        except grpc.RpcError as error:
            self._incoming.put(code_of(error).name)

    def create(self, **fields: Any) -> None:
        """Asks for a watch."""
        self._outgoing.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(**fields)))

    def cancel(self, watch_id: int) -> None:
        """Asks for its end."""
        self._outgoing.put(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))

    def progress(self) -> None:
        """Asks how far the watches are."""
        self._outgoing.put(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def next(self) -> Any:
        """The next response, without what must differ; events are noted under their watch."""
        message = self._incoming.get(timeout=TIMEOUT_S)
        if not isinstance(message, str):
            for name in DIFFERENT_HEADERS:
                message.header.ClearField(name)
            noted = self.events.setdefault(message.watch_id, [])
            if noted and message.events:
                assert noted[-1].kv.mod_revision < message.events[0].kv.mod_revision, (
                    "a revision came in two parts"
                )
            noted.extend(message.events)
        return message

    def read_events(self, counts: dict[int, int]) -> None:
        """Reads until every watch has as many events as it should, or one has more."""
        while any(len(self.events.get(watch, ())) < count for watch, count in counts.items()):
            self.next()

    def close(self) -> None:
        """Ends the stream."""
        self._outgoing.put(None)
        self._call.cancel()
        self._thread.join(TIMEOUT_S)


def expected_events(model: NaiveStore, since: int, watch: tuple[Any, ...]) -> list[Any]:
    """What the watch must see of everything from revision ``since`` on."""
    key, range_end, _, prev_kv, filters = watch
    found = []
    for event in model.events:
        if event[2] < since or not in_range(event[0], key, range_end):
            continue
        kind = 0 if event[3] else 1
        if kind in filters:
            continue
        message = pb.Event(
            type=pb.Event.EventType.ValueType(kind),
            kv=kv.KeyValue(
                key=event[0],
                create_revision=event[1],
                mod_revision=event[2],
                version=event[3],
                value=event[4],
                lease=event[5],
            ),
        )
        before = model.replaced(event)
        if prev_kv and before is not None:
            message.prev_kv.CopyFrom(kv.KeyValue(**before._asdict()))
        found.append(message)
    return found


def play(step: LockStep, watches: list[tuple[Any, ...]], commands: list[Command]) -> int:
    """Watches, writes, and compares what was seen. Gives the number of events."""
    step.begin()
    streams = [Stream(step.theirs), Stream(step.ours)]
    try:
        sinces = []
        for number, (key, range_end, back, prev_kv, filters) in enumerate(watches):
            since = max(step.model.compacted + 1, step.model.revision + 1 - back, 1)
            sinces.append(since)
            for stream in streams:
                stream.create(
                    key=key,
                    range_end=range_end,
                    start_revision=since if back else 0,
                    prev_kv=prev_kv,
                    filters=filters,
                )
            created = [wait_for(stream, lambda answer: answer.created) for stream in streams]
            assert created[0] == created[1]
            assert created[0].watch_id == number
        for command in commands:
            step.execute(placed(command, step.model.revision))
        expected = {n: expected_events(step.model, sinces[n], watch) for n, watch in enumerate(watches)}
        counts = {number: len(each) for number, each in expected.items()}
        for name, stream in zip(("etcd", "ours"), streams, strict=True):
            stream.read_events(counts)
            for number, each in expected.items():
                assert stream.events.get(number, []) == each, f"{name}, watch {number}: {watches[number]}"
        return sum(counts.values())
    finally:
        for stream in streams:
            stream.close()


def wait_for(stream: Stream, wanted: Callable[[Any], bool]) -> Any:
    """The next response that is wanted; events that come before are noted."""
    while not wanted(answer := stream.next()):
        assert answer.events, f"neither events nor what was waited for: {answer}"
    return answer


def test_watches_see_the_same(both: tuple[Store, Store], tell: Callable[[str], None]) -> None:
    step = LockStep(*both)
    seen = []

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        report_multiple_bugs=False,
    )
    @given(WATCHES, st.lists(WRITES, min_size=10, max_size=30))
    def each(watches: list[tuple[Any, ...]], commands: list[Command]) -> None:
        seen.append(play(step, watches, commands))

    each()
    tell(f"etcd: {sum(seen):,} events of watches were seen alike")


def answers(store: Store, step: LockStep) -> list[Any]:
    """What one stream says to one script of requests, response by response."""
    stream = Stream(store)
    told: list[Any] = []
    try:
        newest = step.model.revision
        stream.create(key=b"s1", start_revision=newest - 1)  # 0, from the past: one event
        told += [stream.next(), stream.next()]
        stream.create(key=b"s", range_end=b"t")  # 1
        told.append(stream.next())
        stream.progress()
        told.append(stream.next())
        stream.create(key=b"s1", start_revision=newest + 100)  # 2, in the future
        told.append(stream.next())
        stream.create(key=b"s1", start_revision=2)  # 3, compacted
        told += [stream.next(), stream.next()]
        stream.create(key=b"s1", watch_id=77)
        told.append(stream.next())
        stream.create(key=b"s1", watch_id=77)
        told.append(stream.next())
        stream.create(key=b"z", range_end=b"a")  # nothing can be in there
        told.append(stream.next())
        stream.create(key=b"", range_end=ALL_FROM)
        told.append(stream.next())
        stream.cancel(1)
        told.append(stream.next())
        stream.cancel(1)  # not there any more: no answer
        stream.cancel(500)
        stream.create(key=b"s9")
        told.append(stream.next())
    finally:
        stream.close()
    return told


def test_a_stream_says_the_same(both: tuple[Store, Store]) -> None:
    """Created, progress, the future, the compacted past, ids given and given twice, empty ranges, cancelled."""
    step = LockStep(*both)
    for store in both:  # in step with whatever the test before has left
        store.call(kv.RangeRequest(key=b"a"))
    step.model.revision = both[0].revision
    for command in (Put(b"s1", b"1"), Put(b"s2", b"1"), Put(b"s1", b"2"), Put(b"s2", b"2")):
        step.execute(command)
    step.execute(Compact(step.model.revision - 2))
    theirs, ours = answers(both[0], step), answers(both[1], step)
    for each in theirs:
        if each.compact_revision:
            # etcd fills in no revision here, and we do as everywhere.
            assert not each.header.revision
            each.header.revision = step.model.revision
    assert [str(each) for each in ours] == [str(each) for each in theirs]
