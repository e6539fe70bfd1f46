import pytest

from paxos_rsm.config_checks import (
    check_retention,
    check_retention_in,
    parse_initial_cluster,
    url_address,
)
from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.kv.autocompaction import CompactionMode, parse_retention


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:2379", "127.0.0.1:2379"),
        ("http://localhost:1/", "localhost:1"),
        ("http://[::1]:2379", "[::1]:2379"),
    ],
)
def test_an_address_is_host_and_port(url: str, address: str) -> None:
    assert url_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://host",
        "http://:2379",
        "http://host:0",
        "http://host:x",
        "http://host:1/path",
        "http://user@host:1",
        "http://host:1?q",
        "ftp://host:1",
        "http://ho st:1",
        "http://host\n:1",
        "http://[::1:1",
        "host:1",
    ],
)
def test_anything_else_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError):
        url_address(url)


def test_the_initial_cluster_is_read() -> None:
    assert parse_initial_cluster("n1=http://a:1, n2=http://b:1/") == {"n1": "http://a:1", "n2": "http://b:1"}


@pytest.mark.parametrize("mode", CompactionMode)
@pytest.mark.parametrize(
    "text",
    [
        "0",
        "1",
        "10",
        "1000",
        "10m",
        "1h30m",
        "90s",
        "5ms",
        "9" * 18,
        "9" * 19,
        "-1",
        "1.5h",
        "h",
        "1d",
        " 1",
        "1\n",
        "\u0661",
    ],
)
def test_what_is_read_of_a_retention_is_what_passes_the_check(mode: CompactionMode, text: str) -> None:
    def passes() -> bool:
        try:
            check_retention(text)
            check_retention_in(mode.value, text)
        except ConfigError:
            return False
        return True

    def is_read() -> bool:
        try:
            return parse_retention(mode, text) >= 0
        except ConfigError:
            return False

    assert passes() == is_read()
