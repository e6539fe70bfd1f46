"""The bytes of a snapshot: they come back, and nothing that changed is believed."""

from collections.abc import Iterator
from random import Random
from zlib import crc32

import pytest

from paxos_rsm.errors import SnapshotDamaged
from paxos_rsm.storage.files import File
from paxos_rsm.storage.memory import MemoryFiles
from paxos_rsm.storage.snapshot_format import (
    CHUNK_BYTES_MAX,
    END_BYTES,
    SnapshotEncoder,
    SnapshotMeta,
    SnapshotScan,
    decode_header,
    has_end,
)
from tests.unit.storage.helpers import configuration, snapshot_meta

META = snapshot_meta(40)
PATH = "/snapshot"


def encoded(slices: list[bytes], meta: SnapshotMeta = META) -> bytes:
    encoder = SnapshotEncoder(meta)
    parts = [encoder.header]
    for each in slices:
        parts += encoder.slice(each)
    return b"".join([*parts, encoder.end()])


def opened(data: bytes) -> File:
    file = MemoryFiles().create(PATH, len(data))
    file.pwrite(data, 0)
    return file


def read(data: bytes) -> tuple[SnapshotMeta, list[bytes]]:
    scan = SnapshotScan(opened(data), PATH)
    return scan.meta, list(scan.slices())


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [0, 0, 5],
        [1, 100, 3000],
        [CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1],
        [3 * CHUNK_BYTES_MAX, 0, 2 * CHUNK_BYTES_MAX + 17],
    ],
)
def test_slices_come_back_as_they_were_given(sizes: list[int]) -> None:
    rng = Random(1)
    slices = [rng.randbytes(size) for size in sizes]
    data = encoded(slices)
    assert read(data) == (META, slices)
    scan = SnapshotScan(opened(data), PATH)
    scan.check()
    assert scan.offset == len(data)
    assert scan.slices_read == len(sizes)
    assert has_end(opened(data), len(data))


def test_no_chunk_is_longer_than_the_most() -> None:
    pieces = list(SnapshotEncoder(META).slice(bytes(5 * CHUNK_BYTES_MAX)))
    assert max(map(len, pieces)) == CHUNK_BYTES_MAX


@pytest.mark.parametrize(
    "meta",
    [
        SnapshotMeta(0, 5, 1, configuration()),
        SnapshotMeta(1, 0, 0, configuration()),
        SnapshotMeta(1, 5, 6, configuration()),
        SnapshotMeta(1, 2**63, 6, configuration()),
    ],
)
def test_a_header_that_no_server_writes_is_none(meta: SnapshotMeta) -> None:
    assert decode_header(opened(encoded([], meta))) is None


def test_a_header_with_a_length_beyond_all_bounds_is_not_read() -> None:
    head = encoded([])[:8] + (1 << 31).to_bytes(4, "little")
    assert decode_header(opened(head + crc32(head).to_bytes(4, "little") + bytes(100))) is None


def test_a_header_that_is_no_message_is_none() -> None:
    payload = b"\xff\xff\xff"
    head = encoded([])[:8] + len(payload).to_bytes(4, "little")
    assert decode_header(opened(head + crc32(payload, crc32(head)).to_bytes(4, "little") + payload)) is None


def flips(size: int) -> Iterator[int]:
    """Every byte of a file, in one of its bits."""
    return (byte * 8 + byte % 7 for byte in range(size))


def test_every_byte_of_a_file_with_a_flipped_bit() -> None:
    """Whatever is given is what was written, up to a damaged place that is named."""
    rng = Random(2)
    slices = [rng.randbytes(700), b"", bytes(900), rng.randbytes(30)]
    data = encoded(slices)
    for bit in flips(len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        given: list[bytes] = []
        with pytest.raises(SnapshotDamaged, match=r"/snapshot is damaged at byte \d+: ") as caught:
            given.extend(SnapshotScan(opened(bytes(flipped)), PATH).slices())
        assert given == slices[: len(given)]
        offset = int(str(caught.value).split("at byte ")[1].split(":")[0])
        assert offset <= bit // 8


def test_a_file_cut_short_anywhere() -> None:
    data = encoded([b"a" * 50, b"b" * 60])
    for cut in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            read(data[:cut])
        assert not has_end(opened(data[:cut]), cut)


def test_a_file_that_goes_on() -> None:
    with pytest.raises(SnapshotDamaged, match="goes on after its end"):
        read(encoded([b"a"]) + b"\0")


def test_chunks_that_are_valid_elsewhere_are_not_taken() -> None:
    """Left out, twice, in another order, or of another snapshot."""
    encoder = SnapshotEncoder(META)
    first, second = b"".join(encoder.slice(b"first")), b"".join(encoder.slice(b"other"))
    end = encoder.end()
    assert read(encoder.header + first + second + end)[1] == [b"first", b"other"]
    other = b"".join(SnapshotEncoder(snapshot_meta(41)).slice(b"first"))
    for body in (first, second, first + first, second + first, first + second + second, other + second):
        with pytest.raises(SnapshotDamaged):
            read(encoder.header + body + end)


def test_an_end_that_lies_is_told() -> None:
    """Its checksum holds: the hash of everything does not."""
    encoder = SnapshotEncoder(META)
    piece = b"".join(encoder.slice(b"first"))
    encoder._sha.update(b"x")
    with pytest.raises(SnapshotDamaged, match="does not add up"):
        read(encoder.header + piece + encoder.end())


def test_an_end_within_a_slice_is_told() -> None:
    encoder = SnapshotEncoder(META)
    pieces = b"".join(encoder._chunk(1, b"goes on"))
    with pytest.raises(SnapshotDamaged, match="does not add up"):
        read(encoder.header + pieces + encoder.end())


def test_the_end_is_looked_for_only_where_it_may_be() -> None:
    data = encoded([b"x" * 100])
    assert not has_end(opened(data + b"\0"), len(data) + 1)
    assert not has_end(opened(data[END_BYTES:]), len(data) - END_BYTES)
    assert not has_end(opened(bytes(200)), 200)
