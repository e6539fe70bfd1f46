"""The place of a watch, and its buffer."""

import pytest

from paxos_rsm._proto import kv_pb2
from paxos_rsm._proto import watch_pb2 as pb
from paxos_rsm.client.subscription import BufferLimits, Subscription
from paxos_rsm.errors import Compacted


def put(key: str, revision: int, value: bytes = b"v") -> pb.Event:
    return pb.Event(
        kv=kv_pb2.KeyValue(key=key.encode(), value=value, mod_revision=revision, create_revision=1, version=1)
    )


def taken(watch: Subscription) -> list[tuple[str, bytes, int]]:
    found: list[tuple[str, bytes, int]] = []
    while (event := watch.pop()) is not None:
        found.append((event.kind, event.key, event.revision))
    return found


def live(start_revision: int = 0, at: int = 9, **options: object) -> Subscription:
    watch = Subscription(b"k", b"", start_revision=start_revision, **options)  # type: ignore[arg-type]
    watch.create_request(1)
    watch.created(at)
    return watch


def test_the_request_has_what_was_asked_for() -> None:
    watch = Subscription(
        b"a",
        b"b",
        start_revision=5,
        filters=[pb.WatchCreateRequest.NOPUT],
        prev_kv=True,
        progress=True,
    )
    request = pb.WatchRequest.FromString(watch.create_request(3)).create_request
    assert (request.key, request.range_end, request.start_revision, request.watch_id) == (b"a", b"b", 5, 3)
    assert list(request.filters) == [pb.WatchCreateRequest.NOPUT]
    assert request.prev_kv
    assert request.progress_notify
    assert request.fragment


def test_what_comes_is_what_comes_after_the_creation() -> None:
    watch = live()
    assert watch.next_revision == 10
    watch.took([put("a", 10), put("b", 10)], False)
    watch.took([put("a", 12)], False)
    assert watch.resume_revision == 10
    assert taken(watch) == [("put", b"a", 10), ("put", b"b", 10), ("put", b"a", 12)]
    assert watch.resume_revision == watch.next_revision == 13


def test_what_comes_twice_is_left_out() -> None:
    watch = live()
    watch.took([put("a", 10), put("a", 11)], False)
    watch.took([put("a", 10), put("a", 11), put("a", 12)], False)
    assert [each[2] for each in taken(watch)] == [10, 11, 12]


def test_a_start_in_the_past_is_kept_over_the_creation() -> None:
    watch = live(start_revision=4)
    assert watch.next_revision == 4


def test_fragments_wait_for_the_last_of_their_revision() -> None:
    watch = live()
    watch.took([put("a", 10)], True)
    assert taken(watch) == []
    assert watch.next_revision == 10
    watch.looked_through(50)
    assert watch.next_revision == 10, "the revision is not complete"
    watch.lost()
    watch.create_request(2)
    watch.created(9)
    watch.took([put("a", 10)], True)
    watch.took([put("b", 10)], False)
    assert [each[1] for each in taken(watch)] == [b"a", b"b"]
    watch.took([put("c", 11)], True)
    watch.took([], False)
    assert [each[1] for each in taken(watch)] == [b"c"]


def test_progress_moves_the_place_and_never_back() -> None:
    watch = live()
    watch.looked_through(20)
    assert watch.next_revision == 21
    watch.looked_through(15)
    assert watch.next_revision == 21
    assert taken(watch) == [], "nobody asked to be told"
    asked = live(progress=True)
    asked.looked_through(20)
    asked.looked_through(20)
    assert taken(asked) == [("progress", b"", 20)]


def test_a_deletion_and_what_was_before() -> None:
    watch = live(prev_kv=True, strip=2)
    event = pb.Event(type=pb.Event.DELETE, kv=kv_pb2.KeyValue(key=b"p/k", mod_revision=10))
    event.prev_kv.CopyFrom(kv_pb2.KeyValue(key=b"p/k", value=b"old", mod_revision=4, version=2))
    watch.took([event], False)
    found = watch.pop()
    assert found is not None
    assert (found.kind, found.key, found.value, found.revision) == ("delete", b"k", b"", 10)
    assert found.prev_kv is not None
    assert (found.prev_kv.key, found.prev_kv.value, found.prev_kv.version) == (b"k", b"old", 2)


@pytest.mark.parametrize(
    ("limits", "value"),
    [
        (BufferLimits(events_max=4), b""),
        (BufferLimits(bytes_max=4 * put("a", 10, b"x" * 80).ByteSize()), b"x" * 80),
    ],
)
def test_the_buffer_says_when_it_is_full_and_when_there_is_room(limits: BufferLimits, value: bytes) -> None:
    watch = live(limits=limits)
    revision = 10
    while not watch.is_full:
        assert revision < 20
        watch.took([put("a", revision, value)], False)
        revision += 1
    assert revision == 14
    room = []
    for _ in range(2):
        room.append(watch.has_room)
        watch.pop()
    assert [*room, watch.has_room] == [False, False, True]
    assert len(taken(watch)) == 2


async def test_an_end_with_an_error_leaves_what_was_buffered() -> None:
    watch = live()
    watch.took([put("a", 10)], False)
    watch.end(Compacted("gone", 30))
    watch.end()
    await watch.arrival()
    assert len(taken(watch)) == 1
    assert isinstance(watch.error, Compacted)
    with pytest.raises(Compacted):
        await watch.until_created()


async def test_an_end_that_was_asked_for_takes_the_rest_away() -> None:
    watch = live()
    watch.took([put("a", 10)], False)
    watch.end()
    await watch.arrival()
    await watch.until_created()
    assert taken(watch) == []
    assert watch.ended
    assert not watch.is_full
