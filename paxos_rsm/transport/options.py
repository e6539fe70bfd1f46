"""The measures of the streams between servers, and what gRPC is told so that it keeps to them.

gRPC's defaults suit many short calls to a far service. Ours is one long stream between two servers that must find
each other again within a second, so:

- back-off between attempts to connect stays below ``backoff_max_ms`` (gRPC's own goes up to two minutes), and an
  attempt that gets no answer is given up after ``connect_timeout_ms``: to gRPC that is
  ``min_reconnect_backoff_ms``, whatever its name says. A host name is looked up anew for each.
- a peer whose host vanished without a word is noticed by pings, in ``keepalive_ms + keepalive_timeout_ms``; else
  the kernel would go on retransmitting for many minutes, ever more seldom, and into the void when the peer is
  back. gRPC waits a minute for the answer to a ping whatever its keep-alive time-out is, unless
  ``ping_timeout_ms`` says otherwise, and sends no two within a second. A server has to allow pings: it would end a
  connection for "too many" of them. They are answered by gRPC's own threads, even while the event loop is busy.
- channels do not share connections (``use_local_subchannel_pool``): one that is made anew starts without the
  back-off that the old one had run up.
- no retries by gRPC (it would keep copies of what was sent), no HTTP proxy from the environment (peers are
  neighbours), no second server on our port (``so_reuseport``): a port in use is an error.
"""

from dataclasses import dataclass

from paxos_rsm.errors import ConfigError

__all__ = ["TransportOptions", "channel_options", "server_options"]

FRAME_MARGIN_BYTES = 64 * 1024
"""Above what a frame may hold: tags, lengths, the Hello."""

CHUNK_OVERHEAD_BYTES = 64
"""What a chunk of a snapshot has around its data: a few tags, lengths and numbers."""

STREAMS_PER_CONNECTION_MAX = 8
"""A peer needs one; while it reconnects, two."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How much may wait, how large things may be, and how long is too long."""

    frame_bytes_max: int = 512 * 1024
    """What is written at once: messages that waited are joined up to here."""
    piece_bytes_max: int = 256 * 1024
    """A larger message travels in pieces of this size, between which others pass."""
    message_bytes_max: int = 16 * 1024 * 1024
    """The largest message, encoded: what a receiver is ready to put together from pieces."""
    queue_bytes_max: int = 64 * 1024 * 1024
    """Of bulk messages that wait for one peer."""
    queue_messages_max: int = 65_536
    urgent_bytes_max: int = 4 * 1024 * 1024
    """Of urgent messages that wait for one peer."""
    urgent_messages_max: int = 8_192
    background_bytes_max: int = 4 * 1024 * 1024
    """Of chunks of a snapshot that wait for one peer."""
    connect_timeout_ms: int = 600
    backoff_min_ms: int = 100
    backoff_max_ms: int = 250
    handshake_timeout_ms: int = 3_000
    """For a connection and both Hellos; then everything starts anew."""
    keepalive_ms: int = 1_500
    """Silence after which the other end is asked whether it lives."""
    keepalive_timeout_ms: int = 2_500
    """Without an answer for so long, the stream is ended."""

    def validate(self) -> None:
        """Raises ConfigError where a measure, or two together, make no sense."""
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for small, large in (
            ("piece_bytes_max", "frame_bytes_max"),
            ("piece_bytes_max", "urgent_bytes_max"),
            ("piece_bytes_max", "background_bytes_max"),
            ("message_bytes_max", "queue_bytes_max"),
            ("backoff_min_ms", "backoff_max_ms"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise ConfigError(
                    f"{small} is {getattr(self, small)}, more than {large}, which is {getattr(self, large)}"
                )


GrpcOptions = list[tuple[str, int]]


def _common(options: TransportOptions) -> GrpcOptions:
    # A frame is at most one full of small messages and a piece, or one bulk message, after it.
    frame = options.frame_bytes_max + options.piece_bytes_max + FRAME_MARGIN_BYTES
    return [
        ("grpc.max_receive_message_length", frame),
        ("grpc.max_send_message_length", frame),
        ("grpc.keepalive_time_ms", options.keepalive_ms),
        ("grpc.keepalive_timeout_ms", options.keepalive_timeout_ms),
        ("grpc.http2.ping_timeout_ms", options.keepalive_timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def channel_options(options: TransportOptions) -> GrpcOptions:
    """For the side that connects."""
    return [
        *_common(options),
        ("grpc.initial_reconnect_backoff_ms", options.backoff_min_ms),
        ("grpc.max_reconnect_backoff_ms", options.backoff_max_ms),
        ("grpc.min_reconnect_backoff_ms", options.connect_timeout_ms),
        ("grpc.dns_min_time_between_resolutions_ms", options.backoff_max_ms),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]


def server_options(options: TransportOptions) -> GrpcOptions:
    """For the side that listens."""
    return [
        *_common(options),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", options.keepalive_ms // 2),
        ("grpc.http2.max_ping_strikes", 0),
    ]
