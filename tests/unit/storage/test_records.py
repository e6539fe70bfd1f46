"""One record: whole, torn at every byte, missing sectors, flipped at every bit."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.storage.files import SECTOR_BYTES
from paxos_rsm.storage.records import MARK, PAYLOAD_BYTES_MAX, RecordFormat, Row, record_bytes

FORMAT = RecordFormat(0x0123456789ABCDEF)
ROOM = 64 << 10
PAYLOADS = [
    b"",
    b"x",
    b"promise",
    b"12345678",
    Random(1).randbytes(500),
    Random(2).randbytes(3000),
    bytes(200),
    bytes(505),
    bytes(512),
    bytes(3000),
    b"a" * 700 + bytes(900) + b"b",
]
STARTS = [0, 8, 472, 480, 496, 504]


def row(payload: bytes) -> Row:
    """A row with something in every field."""
    return Row(255, 2**64 - 1, 2**64 - 2, 9, payload)


def image(
    payload: bytes, start: int, number: int = 5, durable_through: int = 3, flags: int = 0
) -> tuple[bytes, int]:
    """A zero-filled segment with one record in it, and where that ends."""
    parts: list[bytes] = []
    FORMAT.encode(parts, row(payload), number, durable_through, 77, flags)
    record = b"".join(parts)
    assert len(record) == record_bytes(len(payload))
    return (bytes(start) + record).ljust(ROOM, b"\0"), start + len(record)


@pytest.mark.parametrize(("payload", "start"), list(product(PAYLOADS, STARTS)))
def test_a_record_comes_back(payload: bytes, start: int) -> None:
    data, end = image(payload, start)
    record = FORMAT.read(data, start)
    assert record is not None
    assert record[:5] == (5, 3, 77, False, row(payload))
    assert record.end == end
    assert end % 8 == 0


def test_a_mark_comes_back() -> None:
    data, _ = image(b"", 0, flags=MARK)
    record = FORMAT.read(data, 0)
    assert record is not None
    assert record.is_mark


def test_the_checksum_is_what_the_next_record_names() -> None:
    parts: list[bytes] = []
    crc = FORMAT.encode(parts, row(b"payload"), 1, 0, FORMAT.seed)
    record = FORMAT.read(b"".join(parts), 0)
    assert record is not None
    assert record.crc == crc


@pytest.mark.parametrize(("payload", "start"), list(product(PAYLOADS, STARTS)))
def test_a_prefix_cut_at_any_byte_is_torn(payload: bytes, start: int) -> None:
    data, end = image(payload, start)
    for cut in range(start, end):
        torn = data[:cut].ljust(ROOM, b"\0")
        assert FORMAT.read(torn, start) is None
        assert FORMAT.damage(torn, start) is None, cut


@pytest.mark.parametrize(("payload", "start"), list(product(PAYLOADS, STARTS)))
def test_a_suffix_left_by_a_cut_erasure_is_torn(payload: bytes, start: int) -> None:
    """Zeroing what was dropped can itself be cut short, at any byte."""
    data, end = image(payload, start)
    for cut in range(start + 1, end):
        erased = data[:start] + bytes(cut - start) + data[cut:]
        assert FORMAT.read(erased, start) is None
        assert FORMAT.damage(erased, start) is None, cut


@pytest.mark.parametrize(("payload", "start"), list(product(PAYLOADS, STARTS)))
def test_a_record_that_misses_sectors_is_torn(payload: bytes, start: int) -> None:
    data, end = image(payload, start)
    sectors = range(start // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1)
    for missing in range(1, 2 ** len(sectors)):
        torn = bytearray(data)
        for bit, sector in enumerate(sectors):
            if missing >> bit & 1:
                low, high = max(start, sector * SECTOR_BYTES), min(end, (sector + 1) * SECTOR_BYTES)
                torn[low:high] = bytes(high - low)
        assert FORMAT.read(bytes(torn), start) is None
        assert FORMAT.damage(bytes(torn), start) is None, f"{missing:b}"


@pytest.mark.parametrize(("payload", "start"), list(product(PAYLOADS, STARTS[::2])))
def test_every_flipped_bit_is_damage(payload: bytes, start: int) -> None:
    data, end = image(payload, start)
    for bit in range(start * 8, end * 8):
        flipped = bytearray(data[: end + 64])
        flipped[bit // 8] ^= 1 << bit % 8
        assert FORMAT.read(bytes(flipped), start) is None, bit
        assert FORMAT.damage(bytes(flipped), start), bit


def test_a_payload_of_one_bit_a_sector_is_not_lost_by_one_flip() -> None:
    """Without its mask, the flipped sector would look like a missing one."""
    payload = bytearray(4096)
    payload[SECTOR_BYTES * 3] = 1
    data, end = image(bytes(payload), 0)
    for sector in range(end // SECTOR_BYTES):
        part = data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
        assert len(part) - part.count(0) >= 4


def test_zeros_and_a_flipped_bit_in_them_are_nothing() -> None:
    for bit in range(record_bytes(16) * 8):
        data = bytearray(4096)
        data[bit // 8] ^= 1 << bit % 8
        assert FORMAT.read(bytes(data), 0) is None
        assert FORMAT.damage(bytes(data), 0) is None


def test_the_end_of_a_segment_holds_no_record() -> None:
    data, _ = image(b"payload", 0)
    for length in range(record_bytes(7)):
        assert FORMAT.read(data[:length], 0) is None
    assert FORMAT.read(data, ROOM) is None
    assert FORMAT.damage(data, ROOM) is None
    assert FORMAT.damage(data, ROOM - 8) is None


def test_a_sound_header_that_reaches_beyond_the_segment_is_damage() -> None:
    data, end = image(Random(3).randbytes(600), 0)
    assert FORMAT.damage(data[: end - 8], 0) == "it is longer than its segment"


def test_another_log_does_not_take_the_record_for_its_own() -> None:
    data, _ = image(b"payload", 0)
    assert RecordFormat(1).read(data, 0) is None
    assert list(RecordFormat(1).later(data.rjust(ROOM + 8, b"\0"), 0, 0)) == []


def test_later_records_are_found() -> None:
    data = bytearray(ROOM)
    for at, number in ((1024, 7), (2048, 9), (4096, 4)):
        record, end = image(b"payload", 0, number)
        data[at : at + end] = record[:end]
    data[8192:8196] = data[1024:1028]  # the magic alone
    found = [(at, record.number) for at, record in FORMAT.later(bytes(data), 0, 4)]
    assert found == [(1024, 7), (2048, 9)]
    assert [at for at, _ in FORMAT.later(bytes(data), 1024, 4)] == [2048]


def test_a_record_at_an_odd_place_is_none() -> None:
    data, end = image(b"payload", 0)
    assert list(FORMAT.later(bytes(1001) + data[:end] + bytes(100), 0, 0)) == []


def test_the_longest_payload_is_legal() -> None:
    assert PAYLOAD_BYTES_MAX >= 8 << 20
    payload = Random(4).randbytes(8 << 20)
    parts: list[bytes] = []
    FORMAT.encode(parts, row(payload), 1, 0, 0)
    record = FORMAT.read(b"".join(parts), 0)
    assert record is not None
    assert record.row == row(payload)


RUNS = st.lists(st.tuples(st.sampled_from([0, 1, 0xA5, 0xFF]), st.integers(0, 1500)), max_size=6)


@given(runs=RUNS, start=st.integers(0, 64).map(lambda at: at * 8), rng=st.randoms(use_true_random=False))
def test_torn_is_torn_and_damaged_is_damaged_whatever_the_payload(
    runs: list[tuple[int, int]], start: int, rng: Random
) -> None:
    payload = b"".join(bytes([byte]) * count for byte, count in runs)
    data, end = image(payload, start)
    record = FORMAT.read(data, start)
    assert record is not None
    assert record.row == row(payload)

    flipped = bytearray(data)
    bit = rng.randrange(start * 8, end * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    assert FORMAT.read(bytes(flipped), start) is None
    assert FORMAT.damage(bytes(flipped), start)

    torn = bytearray(data)
    for sector in range(start // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1):
        if rng.random() < 0.5:
            low, high = max(start, sector * SECTOR_BYTES), min(end, (sector + 1) * SECTOR_BYTES)
            torn[low:high] = bytes(high - low)
    if bytes(torn) != data:
        assert FORMAT.read(bytes(torn), start) is None
        assert FORMAT.damage(bytes(torn), start) is None
