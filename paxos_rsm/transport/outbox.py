"""What waits for one peer: three lanes, each bounded, from which the next frame is cut.

The *urgent* lane holds what is small and what somebody waits for: heartbeats and their replies, phase 1, Accepted,
Nack, Decide, reads. The *bulk* lane holds what carries entries or client frames, and any urgent message too large to
be let past others. A frame takes the urgent lane first and then goes on with bulk, so a heartbeat waits for one
frame at most, however much bulk there is; and every frame takes some bulk, so urgent messages cannot shut it out. A
bulk message above ``piece_bytes_max`` goes in pieces, one a frame. Within a lane order is kept.

The *background* lane holds the chunks of a snapshot, each no larger than a piece. One goes, in a frame of its own,
when nothing else waits; so whatever comes next waits for one piece at most. On a link that is never idle one goes
after every ``OVERTAKEN_MAX`` frames: a peer that needs the snapshot cannot use what it is overtaken by.

Nothing here is ever waited for: what does not fit is dropped, as a network may drop it, and the protocol sends it
again where it still matters. Which end is dropped differs. Of urgent messages the *oldest* go: a heartbeat, a
watermark or a read round is outdone by the next. Of bulk, and of background, the *newest* are refused: Accepts are
retransmitted until they are acknowledged, the owner of a client's frame sends it again, a catch-up or a chunk is
asked for again, and an unbroken run of the slots that came first is worth more to a slow follower than the latest
with a hole before them. One message always fits into an empty lane.
"""

from collections import deque

from paxos_rsm.transport.frames import Cutter, Lane, Packed
from paxos_rsm.transport.options import TransportOptions

__all__ = ["Outbox"]


OVERTAKEN_MAX = 16
"""Frames that may go before a chunk that waits."""


class Outbox:
    """Always holds: each lane is within its limits, or has one message."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[Packed] = deque()
        self._background: deque[bytes] = deque()
        self._overtaken = 0
        self._cutter: Cutter | None = None
        self._piece_id = 0
        self.urgent_bytes = 0
        self.bulk_bytes = 0
        """Of the bulk lane; a message that goes in pieces counts whole until its last has gone."""
        self.background_bytes = 0
        self.dropped = 0
        """Messages, since this box was made."""

    def __bool__(self) -> bool:
        return bool(self._urgent or self._bulk or self._background)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk) + len(self._background)

    @property
    def waiting_bytes(self) -> int:
        """Of all that waits."""
        return self.urgent_bytes + self.bulk_bytes + self.background_bytes

    def put(self, packed: Packed) -> bool:
        """Takes a message, or (bulk or background, full) does not: False."""
        options, size = self._options, len(packed.data)
        if packed.lane is Lane.BACKGROUND:
            return self._put_background(packed.data)
        if packed.lane is Lane.URGENT and size <= options.piece_bytes_max:
            self._urgent.append(packed.data)
            self.urgent_bytes += size
            while len(self._urgent) > 1 and (
                self.urgent_bytes > options.urgent_bytes_max
                or len(self._urgent) > options.urgent_messages_max
            ):
                self.urgent_bytes -= len(self._urgent.popleft())
                self.dropped += 1
            return True
        if self._bulk and (
            self.bulk_bytes + size > options.queue_bytes_max or len(self._bulk) >= options.queue_messages_max
        ):
            self.dropped += 1
            return False
        self._bulk.append(packed)
        self.bulk_bytes += size
        return True

    def next_frame(self) -> bytes | None:
        """The next frame to write, of all that waits and fits; None where nothing waits."""
        if self._background and (self._overtaken >= OVERTAKEN_MAX or not (self._urgent or self._bulk)):
            self._overtaken = 0
            chunk = self._background.popleft()
            self.background_bytes -= len(chunk)
            return chunk
        if not self._urgent and not self._bulk:
            return None
        self._overtaken += bool(self._background)
        parts: list[bytes] = []
        size = 0
        size_max = self._options.frame_bytes_max
        while self._urgent and (not parts or size + len(self._urgent[0]) <= size_max):
            data = self._urgent.popleft()
            parts.append(data)
            size += len(data)
        self.urgent_bytes -= size
        self._add_bulk(parts, size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def clear(self) -> None:
        """Forgets everything: what was meant for one incarnation is not for the next."""
        self._urgent.clear()
        self._bulk.clear()
        self._background.clear()
        self._overtaken = 0
        self._cutter = None
        self.urgent_bytes = self.bulk_bytes = self.background_bytes = 0

    def _put_background(self, data: bytes) -> bool:
        if self._background and self.background_bytes + len(data) > self._options.background_bytes_max:
            self.dropped += 1
            return False
        self._background.append(data)
        self.background_bytes += len(data)
        return True

    def _add_bulk(self, parts: list[bytes], size: int) -> None:
        """Fills a frame up, by one bulk message or piece at least."""
        options, first = self._options, True
        while self._bulk:
            packed = self._bulk[0]
            length = len(packed.data)
            if length > options.piece_bytes_max:
                if first or size + options.piece_bytes_max <= options.frame_bytes_max:
                    parts.append(self._next_piece(packed))
                return  # one piece a frame: what follows would otherwise be read before it
            if not first and size + length > options.frame_bytes_max:
                return
            self._bulk.popleft()
            self.bulk_bytes -= length
            parts.append(packed.data)
            size += length
            first = False

    def _next_piece(self, packed: Packed) -> bytes:
        if self._cutter is None:
            self._piece_id += 1
            self._cutter = Cutter(packed, self._piece_id, self._options.piece_bytes_max)
        piece = self._cutter.next_frame()
        if self._cutter.done:
            self._cutter = None
            self._bulk.popleft()
            self.bulk_bytes -= len(packed.data)
        return piece
