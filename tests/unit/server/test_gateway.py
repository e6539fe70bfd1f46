"""Whether a gateway can be made."""

import importlib.util

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.server import gateway


async def nothing(_context: object) -> None:
    pass


def test_without_aiohttp_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'paxos-rsm\[gateway\]'"):
        gateway.make_gateway(["http://127.0.0.1:1"], [], nothing, request_bytes_max=1_000)


async def test_with_it_there_is_one_that_may_be_stopped_unstarted() -> None:
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed: the gateway is not tested (pip install 'paxos-rsm[gateway]')")
    made = gateway.make_gateway(["http://127.0.0.1:1"], [], nothing, request_bytes_max=1_000)
    await made.stop()
