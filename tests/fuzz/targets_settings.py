"""What an operator or a user writes: settings, addresses, durations. Not bytes of a stranger, and read alike."""

from pathlib import Path
from random import Random
from typing import Any, cast

from paxos_rsm import config
from paxos_rsm.cli.options import parse_duration_s, parse_endpoint
from paxos_rsm.client.endpoints import parse_endpoints
from paxos_rsm.errors import ConfigError, InvalidArgument
from paxos_rsm.machines.kv.autocompaction import AutoCompaction, CompactionMode, parse_retention
from tests.fuzz import values
from tests.fuzz.target import Target, require


def _text(data: bytes) -> str:
    """As the system hands on what is no UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def _address(rng: Random) -> str:
    host = rng.choice(("127.0.0.1", "localhost", "n1.example.org", "[::1]", "[fe80::1%eth0]", "h_1"))
    return f"{host}:{values.number(rng, 1, 65535)}"


def _make_cluster(rng: Random) -> tuple[dict[str, str], bytes]:
    members = {f"n{at}": f"http://h{at}:{values.number(rng, 1, 65535)}" for at in range(rng.randint(1, 5))}
    return members, ",".join([f"{name}={url}" for name, url in members.items()]).encode()


def _parse_cluster(data: bytes) -> dict[str, str]:
    members = config.parse_initial_cluster(_text(data))
    again = ",".join([f"{name}={url}" for name, url in members.items()])
    require(config.parse_initial_cluster(again) == members, "it is another when it is written again")
    for name, url in members.items():
        config.member_id_of(name, url, "token")
    return members


def _make_retention(rng: Random) -> tuple[int, bytes]:
    minutes, seconds = rng.randint(1, 99), rng.randint(0, 59)
    return (minutes * 60 + seconds) * 1000, f"{minutes}m{seconds}s".encode()


def _parse_retention(data: bytes) -> int:
    retention = parse_retention(CompactionMode.PERIODIC, _text(data))
    if retention:
        AutoCompaction(CompactionMode.PERIODIC, retention)
    return retention


def _make_endpoints(rng: Random) -> tuple[list[str], bytes]:
    endpoints = list(dict.fromkeys(_address(rng) for _ in range(rng.randint(1, 4))))
    return endpoints, ",".join(endpoints).encode()


def _parse_endpoints(data: bytes) -> list[str]:
    endpoints = parse_endpoints(_text(data))
    require(parse_endpoints(endpoints) == endpoints, "it is another when it is written again")
    return endpoints


def _make_endpoint(rng: Random) -> tuple[str, bytes]:
    address = _address(rng)
    return address, rng.choice(("", "http://")).encode() + address.encode()


def _parse_endpoint(data: bytes) -> str:
    endpoint = parse_endpoint(_text(data))
    require(parse_endpoint(endpoint) == endpoint, "it is another when it is written again")
    return endpoint


def _make_duration(rng: Random) -> tuple[float, bytes]:
    ms = rng.randint(1, 100_000)
    return ms * 0.001, f"{ms}ms".encode()


def _parse_duration(data: bytes) -> float:
    seconds = parse_duration_s(_text(data))
    require(0 < seconds < float("inf"), f"{seconds} seconds")
    return seconds


class _File:
    """A path whose text is given."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_text(self, encoding: str) -> str:
        return self._data.decode(encoding)

    def __str__(self) -> str:
        return "config.toml"


def _make_file(rng: Random) -> tuple[dict[str, Any], bytes]:
    rows = {
        "name": "n1",
        "heartbeat-interval": rng.randint(20, 90),
        "listen-client-urls": ["http://127.0.0.1:1"],
    }
    chosen = {key: value for key, value in rows.items() if rng.random() < 0.8}
    known = {key: value for key, value in chosen.items() if key in config._BY_KEY}
    wanted = {config._BY_KEY[key].field: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in known.items()]
    return wanted, "\n".join(lines).encode()


def _parse_file(data: bytes) -> dict[str, Any]:
    return config._from_file(cast(Path, _File(data)))


def _make_environment(rng: Random) -> tuple[None, bytes]:
    option = rng.choice(config.OPTIONS)
    value = rng.choice(
        (str(option.default), "http://127.0.0.1:7", "n1=http://127.0.0.1:2380", "5", "-1", "1e3")
    )
    return None, f"{option.env}={value}".encode()


def _parse_environment(data: bytes) -> None:
    name, _, value = _text(data).partition("=")
    config.load_config({}, {name: value} if name != config.CONFIG_FILE_VARIABLE else {})


TARGETS = (
    Target(
        "setting-initial-cluster",
        ("config_checks:parse_initial_cluster", "config_checks:url_address"),
        _make_cluster,
        _parse_cluster,
        (ConfigError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "setting-file",
        ("config:_from_file",),
        _make_file,
        _parse_file,
        (ConfigError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "setting-environment",
        ("config:load_config",),
        _make_environment,
        _parse_environment,
        (ConfigError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "setting-retention",
        ("machines.kv.autocompaction:parse_retention",),
        _make_retention,
        _parse_retention,
        (ConfigError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "client-endpoints",
        ("client.endpoints:parse_endpoints", "client.endpoints:_parse"),
        _make_endpoints,
        _parse_endpoints,
        (InvalidArgument,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "cli-endpoint",
        ("cli.options:parse_endpoint",),
        _make_endpoint,
        _parse_endpoint,
        (ValueError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
    Target(
        "cli-duration",
        ("cli.options:parse_duration_s",),
        _make_duration,
        _parse_duration,
        (ValueError,),
        is_proto=False,
        repeats_input=True,
        blows_up=False,
    ),
)
