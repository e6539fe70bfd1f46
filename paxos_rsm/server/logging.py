"""Structured logs: one event, one line, for people (key=value) or for machines (JSON).

Code logs a short, constant message and hands what varies over as fields::

    log = logging.getLogger(__name__)
    log.info("serving clients", extra={"address": "127.0.0.1:2379"})

    time=2026-11-23T03:49:10.123Z level=info logger=server.app msg="serving clients" address=127.0.0.1:2379
    {"time": "2026-11-23T03:49:10.123Z", "level": "info", "logger": "server.app", "msg": ...}

(Fields must not have the names of logging's own: ``name``, ``msg``, ``args`` and so on; it raises KeyError.)

A line break in a value is escaped, so that no client can write lines of its own into the log. Only the
process that runs nothing but a server configures logging; one that lives in a program uses what is there.
"""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "configure_logging"]

PACKAGE = "paxos_rsm"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# What every record has; the rest came in `extra`.
STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message",
    "asctime",
    "taskName",
}


def configure_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Sends the logs of this process to ``stream`` (stderr): ours from ``level`` on, others' warnings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(PACKAGE).setLevel(LEVELS[level])
    # What a tracing context adds to each record and nobody here prints (logging's own advice for speed).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    yield "time", stamp.replace("+00:00", "Z")
    yield "level", record.levelname.lower()
    yield "logger", record.name.removeprefix(PACKAGE + ".")
    yield "msg", record.getMessage()
    for key, value in vars(record).items():
        if key not in STANDARD:
            yield key, value
    if record.exc_info:
        yield "traceback", formatter.formatException(record.exc_info)


class TextFormatter(logging.Formatter):
    """``key=value``, quoted where a value has blanks, quotes or characters that cannot be printed."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line, without its end."""
        return " ".join(f"{key}={self._quoted(value)}" for key, value in _fields(self, record))

    @staticmethod
    def _quoted(value: Any) -> str:
        text = str(value)
        if text and text.isprintable() and not any(each in ' "=\\' for each in text):
            return text
        return json.dumps(text, ensure_ascii=not text.isprintable())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line, without its end."""
        return json.dumps(dict(_fields(self, record)), default=str)
