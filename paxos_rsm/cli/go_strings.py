"""Strings, durations and sizes as etcd's command reads and writes them, which is as Go does.

``-w fields`` quotes every key and value as Go's ``%q``; a line of ``txn`` and of the interactive ``watch`` is cut into
words in which ``"..."`` is such a string again. Scripts take the one apart and write the other, so both are kept to the
letter. Keys are bytes: what is no UTF-8 is written ``\\xff``, and read back as that byte.
"""

import re

__all__ = ["go_duration", "go_size", "quote", "split_words", "unquote"]

_SHORT = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}
_LONG = {short[1]: char for char, short in _SHORT.items()} | {"'": "'"}

_ESCAPE = re.compile(
    r"\\(?:(?P<short>[abfnrtv\\\"'])|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2})"
    r"|u(?P<u>[0-9A-Fa-f]{4})|U(?P<U>[0-9A-Fa-f]{8})|(?P<bad>.?))",
    re.DOTALL,
)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[^\s"\']\S*|(?P<open>["\'])')


def quote(data: bytes) -> str:
    """``data`` as Go's ``%q``: in double quotes, letters as they are, the rest escaped."""
    parts = []
    for char in data.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if char in _SHORT:
            parts.append(_SHORT[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif code < 0x20 or code == 0x7F:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(parts)}"'


def unquote(text: str) -> bytes:
    """The bytes of a string in double quotes. Raises ValueError, with a sentence, where it is none."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise ValueError(f'{text} is no string in double quotes, such as "key"')
    out = bytearray()
    at, end = 1, len(text) - 1
    while at < end:
        if text[at] == '"':
            raise ValueError(f'{text} has a quote within it: write it as \\"')
        if text[at] != "\\":
            out += text[at].encode("utf-8", "surrogateescape")
            at += 1
            continue
        match = _ESCAPE.match(text, at, end)
        if match is None or match["bad"] is not None:
            raise ValueError(f"{text} has an escape that is none: {text[at : at + 2]}")
        out += _escaped(match)
        at = match.end()
    return bytes(out)


def _escaped(match: re.Match[str]) -> bytes:
    if match["short"]:
        return _LONG[match["short"]].encode()
    if match["hex"]:
        return bytes((int(match["hex"], 16),))
    if match["octal"]:
        return bytes((int(match["octal"], 8),))
    code = int(match["u"] or match["U"], 16)
    try:
        return chr(code).encode()
    except (ValueError, OverflowError):
        raise ValueError(f"{match[0]} is no character") from None


def split_words(line: str) -> list[str]:
    """The words of a line, quotes taken off; bytes that are no UTF-8 as ``os.fsdecode`` has them.

    A word is a ``"Go string"``, a ``'string'`` that is taken as it is, or runs to the next space. Raises ValueError
    where a quote is not closed.
    """
    words = []
    for match in _WORD.finditer(line):
        word = match[0]
        if match["open"]:
            raise ValueError(f"a quote is not closed: {line[match.start() :]}")
        if word[0] == '"':
            word = unquote(word).decode("utf-8", "surrogateescape")
        elif word[0] == "'":
            word = word[1:-1]
        words.append(word)
    return words


def go_duration(seconds: float) -> str:
    """``915.82µs``, ``1.06ms``, ``2.5s``: as Go writes a duration, to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if nanoseconds >= size:
            whole, rest = divmod(nanoseconds, size)
            fraction = f"{rest:0{len(str(size)) - 1}d}".rstrip("0")
            return f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def go_size(count: int) -> str:
    """``20 kB``, ``1.5 MB``: in powers of ten, one digit after the point below ten of a unit."""
    value = float(count)
    if count < 10:
        return f"{count} B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            break
        value /= 1000
    rounded = int(value * 10 + 0.5) / 10
    return f"{rounded:.0f} {unit}" if rounded >= 10 else f"{rounded:.1f} {unit}"
