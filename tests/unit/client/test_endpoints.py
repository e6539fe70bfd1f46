import random

import pytest

from paxos_rsm.client.endpoints import EndpointRing, parse_endpoints
from paxos_rsm.errors import InvalidArgument


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("127.0.0.1:2379", ["127.0.0.1:2379"]),
        ("http://127.0.0.1:2379", ["127.0.0.1:2379"]),
        ("http://127.0.0.1:2379/", ["127.0.0.1:2379"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        (" a:1 , http://b.example:2 ,", ["a:1", "b.example:2"]),
        (["a:1", "b:2,c:3"], ["a:1", "b:2", "c:3"]),
        (["a:1", "http://a:1", "A:1"], ["a:1"]),
        ("[::1]:2379", ["[::1]:2379"]),
        ("http://[fe80::1]:2379", ["[fe80::1]:2379"]),
        ("node_1:65535", ["node_1:65535"]),
    ],
)
def test_what_is_an_endpoint(given: str | list[str], parsed: list[str]) -> None:
    assert parse_endpoints(given) == parsed


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        ",",
        [],
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        ":2379",
        "::1:2379",
        "[::1:2379",
        "https://a:1",
        "ftp://a:1",
        "a:1/path",
        "a:1?x=1",
        "a:1#x",
        "user@a:1",
        "a b:1",
        "-a:1",
        "a\n:1",
        "unix:/tmp/x",
        "http://",
        [b"a:1"],
        [None],
    ],
)
def test_what_is_no_endpoint_is_refused_by_name(garbage: str | list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_endpoints(garbage)
    if isinstance(garbage, str) and garbage.strip(","):
        assert repr(garbage) in str(caught.value)


def ring(count: int, seed: int = 0) -> EndpointRing:
    return EndpointRing([f"h{n}:1" for n in range(count)], random.Random(seed))


def test_clients_start_at_different_servers_and_fail_over_in_different_orders() -> None:
    orders = set()
    for seed in range(200):
        one = ring(3, seed)
        order = []
        for _ in range(3):
            order.append(one.current)
            one.failed()
        assert sorted(order) == ["h0:1", "h1:1", "h2:1"]
        orders.add(tuple(order))
    assert len(orders) == 6


def test_the_first_round_is_quick_and_later_ones_double_up_to_a_limit() -> None:
    one = ring(3)
    pauses = [one.failed() for _ in range(60)]
    assert all(0 <= pause <= 0.02 for pause in pauses[:3])
    assert all(0.025 <= pause <= 0.05 for pause in pauses[3:6])
    assert all(0.05 <= pause <= 0.1 for pause in pauses[6:9])
    assert all(0.5 <= pause <= 1.0 for pause in pauses[-30:])
    assert len(set(pauses)) == len(pauses), "every pause is cut by a random part"


def test_success_wipes_the_slate() -> None:
    one = ring(2)
    for _ in range(20):
        one.failed()
    assert one.failures == 20
    one.succeeded()
    assert one.failures == 0
    assert one.failed() <= 0.02


def test_one_endpoint_is_tried_again() -> None:
    one = ring(1)
    one.failed()
    assert one.current == "h0:1"


def test_refused_by_all_is_said_once_it_is_so() -> None:
    one = ring(3)
    assert one.refused("no") is None
    assert one.refused("still no") is None, "the same one twice"
    one.failed()
    assert one.refused("nor here") is None
    one.failed()
    said = one.refused("nowhere")
    assert said is not None
    assert all(word in said for word in ("still no", "nor here", "nowhere", "h0:1", "h1:1", "h2:1"))
    assert one.refused("again") is None, "the next call may try them anew"


def test_a_server_that_works_is_no_reason_to_give_up() -> None:
    one = ring(2)
    assert one.refused("no") is None
    one.failed()
    one.succeeded()
    assert one.refused("no") is None


def test_other_servers_take_their_place() -> None:
    one = ring(3)
    one.failed()
    current = one.current
    assert one.refused("no") is None
    one.replace(["x:1", current, "y:1"])
    assert one.current == current
    assert len(one) == 3
    assert one.refused("no") is None, "the refusals of those that stay are kept"
    one.replace(["x:1", "y:1"])
    assert one.current in ("x:1", "y:1")
    before = one.current
    one.replace(["y:1", "x:1"])
    assert one.current == before, "the same servers in another order are no others"
