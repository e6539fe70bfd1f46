import click
import pytest

from paxos_rsm._proto import kv_pb2
from paxos_rsm.cli.key_completion import complete_key
from paxos_rsm.cli.kv import get
from paxos_rsm.cli.options import Settings
from paxos_rsm.testing import PortHolder
from tests.unit.cli.fake_servers import Member, serving
from tests.unit.cli.helpers import spawn


class Store(Member):
    """Has some keys."""

    def Range(self, request: kv_pb2.RangeRequest, context: object) -> kv_pb2.RangeResponse:
        self.asked.append(request)
        keys = [b"app/x", b"app/y", b"two words", b"\xff", b"b"]
        found = [
            key
            for key in keys
            if request.key <= key and (request.range_end == b"\0" or key < request.range_end)
        ]
        return kv_pb2.RangeResponse(kvs=[kv_pb2.KeyValue(key=key) for key in found])


def completions(endpoint: str, incomplete: str) -> list[str]:
    context = click.Context(get, obj=Settings(endpoints=(endpoint,)))
    return [item.value for item in complete_key(context, get.params[0], incomplete)]


def test_asks_a_server_for_the_keys_that_begin_so() -> None:
    store = Store(1)
    with serving(store):
        assert completions(store.endpoint, "app/") == ["app/x", "app/y"]
        assert completions(store.endpoint, "") == ["app/x", "app/y", "b"]  # but for those that need quotes
    request = store.asked[0]
    assert (request.serializable, request.keys_only, request.limit) == (True, True, 100)


def test_nothing_where_nobody_answers() -> None:
    with PortHolder() as holder:
        assert completions(f"127.0.0.1:{holder.take(1)[0]}", "a") == []


@pytest.mark.parametrize(("words", "found"), [("get app", {"app/x", "app/y"}), ("del --prefix b", {"b"})])
def test_in_bash_too(words: str, found: set[str]) -> None:
    store = Store(1)
    with serving(store):
        asked = spawn(
            _PAXOS_RSM_COMPLETE="bash_complete",
            COMP_WORDS=f"paxos-rsm {words}",
            COMP_CWORD=str(len(words.split())),
            PAXOS_RSM_ENDPOINTS=store.endpoint,
        )
    assert {line.partition(",")[2] for line in asked.stdout.decode().splitlines()} == found
