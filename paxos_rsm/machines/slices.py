"""Snapshots as a stream of bytes: how they are cut, read back and checked.

A snapshot is written as many small pieces; :func:`cut` lays them end to end and cuts the whole into slices of an
even size, neither so small that each costs a call nor so large that one stalls the server. Storage and transport may
cut it differently again: :class:`SliceReader` reads a number of bytes at a time, wherever the cuts are.

A slice may be *empty*: it is no part of the snapshot, but a moment at which whoever takes the slices can do other
things, since making the next one takes long. Which of them come, and how many, may differ between equal snapshots.

:func:`sealed` ends the stream with the CRC-32 of everything before it, and :meth:`SliceReader.finish` demands that
and the end of the stream. So a snapshot that is cut short, too long, or changed is refused and never half believed.
"""

from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from paxos_rsm.errors import MachineFailed

__all__ = ["SLICE_BYTES", "SliceReader", "Slices", "cut", "sealed"]

SLICE_BYTES = 256 * 1024


def cut(pieces: Iterable[bytes], slice_bytes: int = SLICE_BYTES) -> Iterator[bytes]:
    """The pieces end to end, in slices of ``slice_bytes`` bytes; the last may be shorter.

    An empty piece makes an empty slice, at once.
    """
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if not piece:
            yield piece
            continue
        waiting.append(piece)
        size += len(piece)
        if size >= slice_bytes:
            joined = b"".join(waiting)
            whole = size - size % slice_bytes
            for start in range(0, whole, slice_bytes):
                yield joined[start : start + slice_bytes]
            waiting = [joined[whole:]]
            size -= whole
    if size:
        yield b"".join(waiting)


def sealed(pieces: Iterable[bytes], slice_bytes: int = SLICE_BYTES) -> Iterator[bytes]:
    """:func:`cut`, with a last slice of 4 bytes: the CRC-32 of all the others, big-endian."""
    checksum = 0
    for each in cut(pieces, slice_bytes):
        checksum = crc32(each, checksum)
        yield each
    yield checksum.to_bytes(4, "big")


class Slices(Iterator[bytes]):
    """A snapshot that is being read. What its view holds on to is let go at its end, by :meth:`close`, or with it."""

    __slots__ = ("_close", "_slices")

    def __init__(self, slices: Iterator[bytes], close: Callable[[], None]) -> None:
        """``close`` may be called more than once."""
        self._slices = slices
        self._close = close

    def __next__(self) -> bytes:
        slice_ = next(self._slices, None)
        if slice_ is None:
            self.close()
            raise StopIteration
        return slice_

    def close(self) -> None:
        """Ends the reading: there are no more slices."""
        self._slices = iter(())
        self._close()

    def __del__(self) -> None:
        self._close()


class SliceReader:
    """Reads a sealed stream; ``name`` says in errors what it is the snapshot of.

    Everything raises MachineFailed where the stream is not what it should be.
    """

    __slots__ = ("_at", "_checksum", "_chunks", "_here", "_name")

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = iter(chunks)
        self._name = name
        self._here = b""
        self._at = 0
        self._checksum = 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        data = self._take(size)
        self._checksum = crc32(data, self._checksum)
        return data

    def waiting(self) -> tuple[bytes, int]:
        """A chunk and where in it the next byte stands: to be read there, and then :meth:`skip`-ped."""
        return self._here, self._at

    def skip(self, to: int) -> None:
        """Counts what :meth:`waiting` gave as read, up to ``to``."""
        self._checksum = crc32(memoryview(self._here)[self._at : to], self._checksum)
        self._at = to

    def expect(self, data: bytes, what: str) -> None:
        """Reads as many bytes as ``data`` has, and demands that they are those."""
        if self.read(len(data)) != data:
            raise self.damaged(what)

    def finish(self) -> None:
        """Demands the checksum of what was read, and the end of the stream."""
        expected = self._checksum
        if int.from_bytes(self._take(4), "big") != expected:
            raise self.damaged("its checksum does not match")
        if self._at < len(self._here) or any(self._chunks):
            raise self.damaged("there are bytes after its end")

    def damaged(self, what: str) -> MachineFailed:
        """The error that says so."""
        return MachineFailed(
            f"the snapshot of {self._name} cannot be restored: {what}. Nothing of it is used; "
            "restore another copy, or let this server fetch one from a peer"
        )

    def _take(self, size: int) -> bytes:
        at = self._at
        end = at + size
        if end <= len(self._here):
            self._at = end
            return self._here[at:end]
        parts = [self._here[at:]]
        missing = end - len(self._here)
        self._here, self._at = b"", 0
        while missing:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise self.damaged(f"it is cut short, {missing} bytes are missing")
            if len(chunk) > missing:
                self._here, self._at = chunk, missing
                chunk = chunk[:missing]
            parts.append(chunk)
            missing -= len(chunk)
        return b"".join(parts)
