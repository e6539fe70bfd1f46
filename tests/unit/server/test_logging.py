"""One event, one line, whatever the values; levels; and what is ours and what is others'."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from paxos_rsm.server.logging import configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the logs go; afterwards logging is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("paxos_rsm")
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    ours.setLevel(own_level)


def test_text_is_key_value(stream: io.StringIO) -> None:
    configure_logging("info", "text", stream)
    logging.getLogger("paxos_rsm.server.app").info(
        "serving clients", extra={"address": "127.0.0.1:2379", "count": 3, "empty": "", "why": 'a "b" = c'}
    )
    line = stream.getvalue()
    assert line.endswith(
        ' level=info logger=server.app msg="serving clients" address=127.0.0.1:2379 count=3 empty="" '
        'why="a \\"b\\" = c"\n'
    )
    assert line.startswith("time=2")
    assert line.split(" ")[0].endswith("Z")


def test_json_is_an_object_a_line(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("paxos_rsm.replica").warning(
        "late by %d ms", 7, extra={"peer": "n2", "error": ValueError("x")}
    )
    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "warning",
        "logger": "replica",
        "msg": "late by 7 ms",
        "peer": "n2",
        "error": "x",
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_writes_lines_of_his_own(stream: io.StringIO, log_format: str) -> None:
    configure_logging("info", log_format, stream)
    log = logging.getLogger("paxos_rsm.x")
    log.info("a key", extra={"key": "a\nlevel=error msg=forged\x1b[31m\u2028"})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed\nhere")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "ValueError" in lines[1]
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(stream: io.StringIO, level: str, seen: list[str]) -> None:
    configure_logging(level, "json", stream)
    log = logging.getLogger("paxos_rsm.x")
    for method in (log.debug, log.info, log.warning, log.error):
        method("x")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == seen


def test_of_others_only_warnings_are_heard(stream: io.StringIO) -> None:
    configure_logging("debug", "json", stream)
    logging.getLogger("grpc._cython.cygrpc").info("chatter")
    logging.getLogger("asyncio").warning("a slow callback")
    assert [json.loads(line)["logger"] for line in stream.getvalue().splitlines()] == ["asyncio"]
