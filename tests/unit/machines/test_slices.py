import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.errors import MachineFailed
from paxos_rsm.machines.slices import SliceReader, cut, sealed

PIECES = [b"abc", b"", b"defghij", b"k"]


def test_pieces_are_cut_evenly_and_an_empty_one_is_a_pause() -> None:
    assert list(cut(PIECES, 4)) == [b"", b"abcd", b"efgh", b"ijk"]
    assert list(cut([b"abc", b"defghij", b"k"], 11)) == [b"abcdefghijk"]
    assert list(cut([b"abcd"], 4)) == [b"abcd"]
    assert list(cut([b"", b""], 4)) == [b"", b""]


@given(st.lists(st.binary(max_size=9)), st.integers(1, 12), st.integers(1, 12), st.data())
def test_what_is_sealed_reads_back_however_it_is_cut(
    pieces: list[bytes], one: int, other: int, data: st.DataObject
) -> None:
    stream = b"".join(sealed(pieces, one))
    reader = SliceReader(cut([stream], other), "it")
    left = len(stream) - 4
    read = []
    while left:
        size = data.draw(st.integers(1, left))
        read.append(reader.read(size))
        left -= size
    reader.finish()
    assert b"".join(read) == b"".join(pieces)


def read_all(reader: SliceReader) -> None:
    reader.read(11)
    reader.finish()


def test_a_stream_cut_short_is_refused() -> None:
    stream = b"".join(sealed(PIECES))
    for end in range(len(stream)):
        reader = SliceReader([stream[:end]], "the orders")
        with pytest.raises(MachineFailed, match="the orders cannot be restored: it is cut short"):
            read_all(reader)


def test_a_stream_with_a_changed_bit_is_refused() -> None:
    stream = b"".join(sealed(PIECES))
    for bit in range(len(stream) * 8):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        reader = SliceReader([bytes(damaged)], "the orders")
        reader.read(11)
        with pytest.raises(MachineFailed, match="its checksum does not match"):
            reader.finish()


@pytest.mark.parametrize("chunks", [[b"x"], [b"", b"x"]])
def test_bytes_after_the_end_are_refused(chunks: list[bytes]) -> None:
    stream = b"".join(sealed(PIECES))
    for whole in ([stream, *chunks], [stream + b"".join(chunks)]):
        reader = SliceReader(whole, "it")
        reader.read(11)
        with pytest.raises(MachineFailed, match="bytes after its end"):
            reader.finish()


def test_empty_chunks_are_nothing() -> None:
    reader = SliceReader([b"", *sealed(PIECES, 3), b""], "it")
    assert reader.read(11) == b"abcdefghijk"
    reader.finish()


def test_a_stream_of_another_kind_is_refused() -> None:
    reader = SliceReader(sealed([b"paxos_rsm other 1\n"]), "the orders")
    with pytest.raises(MachineFailed, match="the orders cannot be restored: it is another"):
        reader.expect(b"paxos_rsm orders 1\n", "it is another")
