"""Lines of standard input, for commands that go on meanwhile.

A thread of its own reads: a terminal, a pipe and a file alike, and without making the terminal non-blocking, which
would be so for whoever shares it. It reads the descriptor and not ``sys.stdin``, whose lock it would take with it into
the end of the process.
"""

import asyncio
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator

__all__ = ["arriving_lines", "text_lines"]

CHUNK_BYTES = 64 * 1024


def text_lines() -> Iterator[str]:
    """The lines there are, without their line breaks; bytes that are no UTF-8 as in arguments."""
    for line in sys.stdin.buffer:
        yield _text(line)


async def arriving_lines() -> AsyncIterator[str]:
    """The lines as they come, while the event loop goes on."""
    try:
        descriptor = sys.stdin.fileno()
    except (
        OSError,
        io.UnsupportedOperation,
    ):  # put in its place by somebody who runs this in his own process
        for line in text_lines():
            yield line
            await asyncio.sleep(0)
        return
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def hand_on(line: bytes | None) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, line)
        except RuntimeError:
            pass  # the loop is closed: nobody waits for it any more

    def read() -> None:
        rest = b""
        while chunk := os.read(descriptor, CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                hand_on(line)
        if rest:
            hand_on(rest)
        hand_on(None)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while (line_read := await queue.get()) is not None:
        yield _text(line_read)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").rstrip("\n").removesuffix("\r")
