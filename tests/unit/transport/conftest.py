import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from tests.unit.transport.helpers import MADE, PORTS, close, until


@pytest.fixture(autouse=True)
async def nothing_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Closes every peer; then there is no task, no failure, and nothing that asyncio or gRPC complained of."""
    MADE.clear()
    before = asyncio.all_tasks()
    yield
    await close(*MADE)
    PORTS.close()
    assert not [error for peer in MADE for error in peer.failed]
    try:
        await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})
    except TimeoutError:
        pytest.fail(f"tasks are left: {asyncio.all_tasks() - before}")
    complaints = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name.split(".")[0] in ("asyncio", "grpc") and record.levelno >= logging.WARNING
    ]
    assert not complaints
