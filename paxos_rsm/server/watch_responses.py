"""WatchResponse as bytes, put together from parts that are encoded once.

An event is the same for everyone who watches its key; what differs is the number of the watch. So events are encoded
one by one, each with its tag in front, and a response is a header, the number and the events, joined::

    [1: header][2: watch_id][7: fragment][11: event][11: event]...

The hub gives one tuple of events to all watches that share a range and its filters, one revision at a time: the
encodings of the newest revision are kept by the identity of that tuple, and so is the header of that revision.
"""

from collections.abc import Iterator, Sequence

from paxos_rsm._proto import kv_pb2, watch_pb2
from paxos_rsm.machines.kv.store import Record
from paxos_rsm.server.headers import Headers
from paxos_rsm.server.rpc import length_delimited
from paxos_rsm.server.watch_hub import Event

__all__ = ["WatchResponses", "encode_event"]

HEADER_FIELD = 1
EVENTS_FIELD = 11
WATCH_ID_TAG = b"\x10"
FRAGMENT = b"\x38\x01"

DELETE = watch_pb2.Event.EventType.DELETE
PUT = watch_pb2.Event.EventType.PUT


class WatchResponses:
    """Makes the responses of all streams of a server."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self._revision = -1
        # Of that revision: its events by the identity of their tuple, which is kept so that no other can have it.
        self._encoded: dict[int, tuple[Sequence[Event], list[bytes], int]] = {}
        self._header_revision = -1
        self._header = b""

    def events(self, revision: int, events: Sequence[Event]) -> tuple[list[bytes], int]:
        """The events of one revision, encoded for a response each, and how many bytes that is."""
        if revision != self._revision:
            self._revision = revision
            self._encoded.clear()
        found = self._encoded.get(id(events))
        if found is None:
            parts = [encode_event(event) for event in events]
            found = self._encoded[id(events)] = (events, parts, sum(map(len, parts)))
        return found[1], found[2]

    def forget_header(self) -> None:
        """The next header is made anew: the leader has changed, and with it the term in it."""
        self._header_revision = -1

    def with_events(
        self, watch_id: int, revision: int, parts: Sequence[bytes], fragment_bytes: int = 0
    ) -> Iterator[bytes]:
        """The response with these events; several where it has more than ``fragment_bytes`` (0: never).

        A fragment has as many events as fit, one at least; all but the last say that another follows.
        """
        if revision != self._header_revision:
            header = self._headers.make(revision).SerializeToString()
            self._header = length_delimited(HEADER_FIELD, header)
            self._header_revision = revision
        head = self._header + _id_field(watch_id)
        at = 0
        while fragment_bytes and at < len(parts) - 1:
            size, end = len(head) + len(FRAGMENT) + len(parts[at]), at + 1
            while end < len(parts) and size + len(parts[end]) < fragment_bytes:
                size += len(parts[end])
                end += 1
            if end == len(parts):
                break
            yield b"".join((head, FRAGMENT, *parts[at:end]))
            at = end
        yield b"".join((head, *parts[at:]))

    def without_events(
        self,
        watch_id: int,
        *,
        revision: int | None = None,
        created: bool = False,
        canceled: bool = False,
        compact_revision: int = 0,
        resume_revision: int = 0,
        cancel_reason: str = "",
    ) -> bytes:
        """A response that says something of the watch itself; ``revision`` is the store's newest where not given."""
        return watch_pb2.WatchResponse(
            header=self._headers.make(revision),
            watch_id=watch_id,
            created=created,
            canceled=canceled,
            compact_revision=compact_revision,
            resume_revision=resume_revision,
            cancel_reason=cancel_reason,
        ).SerializeToString()


def encode_event(event: Event) -> bytes:
    """An event as a field of WatchResponse."""
    message = watch_pb2.Event(
        type=DELETE if event.is_deletion else PUT,
        kv=_key_value(event.record),
        prev_kv=None if event.previous is None else _key_value(event.previous),
    )
    return length_delimited(EVENTS_FIELD, message.SerializeToString())


def _key_value(record: Record) -> kv_pb2.KeyValue:
    key, create_revision, mod_revision, version, value, lease = record
    return kv_pb2.KeyValue(
        key=key,
        create_revision=create_revision,
        mod_revision=mod_revision,
        version=version,
        value=value,
        lease=lease,
    )


def _id_field(watch_id: int) -> bytes:
    """The number of a watch as a field: an int64, of which 0 is left out and a negative one is written as 64 bits."""
    if not watch_id:
        return b""
    number = watch_id & (1 << 64) - 1
    field = bytearray(WATCH_ID_TAG)
    while number > 0x7F:
        field.append(number & 0x7F | 0x80)
        number >>= 7
    field.append(number)
    return bytes(field)
