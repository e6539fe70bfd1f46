import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.transport.options import TransportOptions, channel_options, server_options


def test_the_defaults_make_sense() -> None:
    TransportOptions().validate()


@pytest.mark.parametrize("name", TransportOptions.__slots__)
def test_nothing_may_be_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        TransportOptions(**{name: 0}).validate()


@pytest.mark.parametrize(
    "options",
    [
        TransportOptions(piece_bytes_max=2, frame_bytes_max=1),
        TransportOptions(urgent_bytes_max=1_000),
        TransportOptions(background_bytes_max=1_000),
        TransportOptions(message_bytes_max=128 << 20),
        TransportOptions(backoff_min_ms=300, backoff_max_ms=200),
    ],
)
def test_relations_are_checked(options: TransportOptions) -> None:
    with pytest.raises(ConfigError, match="more than"):
        options.validate()


def test_both_ends_take_what_either_sends() -> None:
    options = TransportOptions()
    for made in (dict(channel_options(options)), dict(server_options(options))):
        assert made["grpc.max_receive_message_length"] == made["grpc.max_send_message_length"]
        assert made["grpc.max_receive_message_length"] > options.frame_bytes_max + options.piece_bytes_max


def test_a_server_allows_the_pings_that_a_peer_sends() -> None:
    options = TransportOptions()
    sent = dict(channel_options(options))["grpc.keepalive_time_ms"]
    assert dict(server_options(options))["grpc.http2.min_recv_ping_interval_without_data_ms"] < sent


def test_a_peer_that_returns_is_met_within_a_second() -> None:
    """At worst an attempt was begun just before, got no answer, and is followed by a pause (20 % of jitter)."""
    made = dict(channel_options(TransportOptions()))
    pause_ms = 1.2 * max(made["grpc.max_reconnect_backoff_ms"], made["grpc.initial_reconnect_backoff_ms"])
    assert made["grpc.min_reconnect_backoff_ms"] + pause_ms <= 950
