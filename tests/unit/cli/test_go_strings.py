import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.cli.go_strings import go_duration, go_size, quote, split_words, unquote


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a", '"a"'),
        ('x"\n\x01é'.encode(), r'"x\"\n\x01é"'),
        (b"\xff\x7f", r'"\xff\x7f"'),
        (b"\\ \t", r'"\\ \t"'),
        ("\u200b\U000e0001".encode(), r'"\u200b\U000e0001"'),
        (b"'", '"\'"'),
    ],
)
def test_quotes_as_go_does(data: bytes, text: str) -> None:
    assert quote(data) == text
    assert unquote(text) == data


@given(st.binary())
def test_no_byte_is_lost_in_quotes(data: bytes) -> None:
    assert unquote(quote(data)) == data


@given(st.lists(st.binary(min_size=1)))
def test_a_line_of_quoted_words_gives_the_words(words: list[bytes]) -> None:
    split = split_words(" ".join(map(quote, words)))
    assert [word.encode("utf-8", "surrogateescape") for word in split] == words


def test_the_escapes_that_are_read_and_never_written() -> None:
    assert unquote(r'"\101\'"') == b"A'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "no string in double quotes"),
        ('"', "no string in double quotes"),
        ('"a"b"', "quote within it"),
        (r'"\q"', r"an escape that is none: \\q"),
        (r'"\x1"', "an escape that is none"),
        (r'"\ud800"', "is no character"),
        (r'"\U99999999"', "is no character"),
    ],
)
def test_what_is_no_string_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unquote(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("put a b", ["put", "a", "b"]),
        ("  put\ta  'one two' ", ["put", "a", "one two"]),
        (r'put "a b" "\n"', ["put", "a b", "\n"]),
        (r"put 'a\n' x'y", ["put", r"a\n", "x'y"]),
        ("put a ''", ["put", "a", ""]),
        ("", []),
    ],
)
def test_words_of_a_line(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize("line", ['put "a', "put 'a", 'put a "'])
def test_a_quote_that_is_not_closed_is_said(line: str) -> None:
    with pytest.raises(ValueError, match="not closed"):
        split_words(line)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5e-9, "5ns"),
        (915.82e-6, "915.82µs"),
        (1.195339e-3, "1.195339ms"),
        (0.25, "250ms"),
        (2.5, "2.5s"),
    ],
)
def test_durations_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (9, "9 B"), (20480, "20 kB"), (24576, "25 kB"), (1500, "1.5 kB"), (2 * 10**9, "2.0 GB")],
)
def test_sizes_as_etcds_command_writes_them(count: int, text: str) -> None:
    assert go_size(count) == text
