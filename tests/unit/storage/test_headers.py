"""Headers, seals and names of segments."""

import pytest

from paxos_rsm.storage.headers import (
    HEADER_BYTES,
    RECORDS_START,
    SEAL_BYTES,
    SEAL_START,
    SegmentHeader,
    decode_header,
    encode_header,
    encode_seal,
    segment_name,
    segment_sequence,
)

HEADER = SegmentHeader(3, 64 << 20, 2**63 - 1, 2**64 - 1, 2**40, 0xFFFFFFFF)


def test_a_header_comes_back() -> None:
    data = encode_header(HEADER)
    assert len(data) == HEADER_BYTES
    assert decode_header(data) == HEADER
    assert decode_header(data + b"more") == HEADER


def test_a_header_of_version_1() -> None:
    older = HEADER._replace(version=1)
    assert encode_header(older)[:8] == b"\xd7paxlog1"
    assert decode_header(encode_header(older)) == older


def test_every_flipped_bit_of_a_header_is_found() -> None:
    data = encode_header(HEADER)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_header(bytes(flipped)) is None


@pytest.mark.parametrize("length", range(HEADER_BYTES))
def test_every_torn_header_is_found(length: int) -> None:
    data = encode_header(HEADER)
    assert decode_header(data[:length]) is None
    assert decode_header(data[:length] + bytes(HEADER_BYTES - length)) in (None, HEADER)
    assert decode_header(bytes(HEADER_BYTES)) is None


def test_header_seal_and_records_do_not_touch() -> None:
    assert HEADER_BYTES <= SEAL_START
    assert len(encode_seal(2)) == SEAL_BYTES
    assert SEAL_START + SEAL_BYTES <= RECORDS_START
    assert SEAL_START % 4096 == RECORDS_START % 4096 == 0


def test_any_beginning_of_a_seal_can_be_seen() -> None:
    assert encode_seal(2)[0] != 0


def test_names_come_back_and_sort() -> None:
    sequences = [1, 2, 9, 10, 99, 100, 12345]
    names = [segment_name(sequence) for sequence in sequences]
    assert names == sorted(names)
    assert [segment_sequence(name) for name in names] == sequences


@pytest.mark.parametrize(
    "name",
    [
        "0000000000000001.log.new",
        "1.log",
        "lost+found",
        "0000000000000001",
        "000000000000000x.log",
        "²" * 16 + ".log",
    ],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert segment_sequence(name) is None
