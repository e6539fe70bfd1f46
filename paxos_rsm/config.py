"""What a server is told before it starts, where it was told so, and whether that makes sense.

One table, :data:`OPTIONS`, made from the fields of :class:`ServerConfig` and :class:`Tuning`, says for each
setting its flag, its environment variable and its key in a TOML file. :func:`load_config` reads them in this
order, the later one wins::

    defaults  <  TOML file (--config-file)  <  environment (PAXOS_RSM_*)  <  flags

A value is checked where it is read, so that the sentence can name its source; what only two values together
can get wrong is checked by ``validate()``, which names both by their flags. Flags and defaults are etcd's
where etcd has them: ``server`` without a flag is a cluster of one.

Who is who follows from the configuration alone, on every server alike: the cluster's id from its token and
its initial members (and the backup that they were restored from, if they were), a member's id from its name,
its peer URL and the token. Ids have 63 bits, so that they fit the signed integers of other languages, and are
never 0. Only a server that joins a cluster which runs (``--initial-cluster-state existing``) is told its ids by
that cluster, and keeps them in its data directory.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paxos_rsm.config_checks import (
    UNSPECIFIED_HOSTS,
    Check,
    between,
    check_initial_cluster,
    check_machine,
    check_name,
    check_origins,
    check_retention,
    check_retention_in,
    check_store_alone,
    check_text,
    check_urls,
    one_of,
    parse_initial_cluster,
    setting,
    url_address,
)
from paxos_rsm.errors import ConfigError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "FRAME_OVERHEAD_BYTES",
    "OPTIONS",
    "Option",
    "ServerConfig",
    "Tuning",
    "load_config",
    "member_id_of",
    "parse_initial_cluster",
    "url_address",
]

ENVIRONMENT_PREFIX = "PAXOS_RSM_"
CONFIG_FILE_VARIABLE = "PAXOS_RSM_CONFIG_FILE"

FRAME_OVERHEAD_BYTES = 1024
"""What a frame with one command may have beyond that command: session, sequence numbers, lengths."""

ID_BITS = 63
MIB = 1024 * 1024

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
CLUSTER_STATES = ("new", "existing")
COMPACTION_MODES = ("periodic", "revision")

QUOTA_BYTES = 2 * 1024 * MIB
"""etcd's own, where none is given."""

# ---- the settings ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuning:
    """Times, sizes and limits. The defaults suit servers within one region; members should agree on them."""

    tick_ms: int = setting(25, between(1, 1_000), "length of one tick of the protocol's clock")
    heartbeat_ms: int = setting(50, between(1, 10_000), "time between two heartbeats", "heartbeat-interval")
    election_timeout_ms: int = setting(
        500, between(10, 50_000), "silence of the leader after which another stands", "election-timeout"
    )
    request_bytes_max: int = setting(
        1_572_864, between(1_024, 64 * MIB), "largest request of a client in bytes", "max-request-bytes"
    )
    entry_bytes_max: int = setting(
        1_572_864 + 64 * 1024, between(4_096, 128 * MIB), "largest entry of the log in bytes"
    )
    log_segment_bytes: int = setting(
        64 * MIB, between(64 * 1024, 1_024 * MIB), "bytes that the log takes from the disk at a time"
    )
    window_entries: int = setting(
        8, between(1, 4_096), "entries that the leader has proposed and not decided, at most"
    )
    pending_bytes_max: int = setting(
        64 * MIB, between(1 * MIB, 4_096 * MIB), "bytes of frames that wait at this server for the log"
    )
    results_bytes_max: int = setting(
        16 * MIB, between(64 * 1024, 1_024 * MIB), "results waiting on one stream for a client to read them"
    )
    unary_in_flight_max: int = setting(
        8_192, between(1, 1_000_000), "unary requests that this server works on at once"
    )
    watch_stream_bytes_max: int = setting(
        4 * MIB,
        between(64 * 1024, 1_024 * MIB),
        "events waiting on one watch stream for a client to read them",
    )
    watch_stall_ms: int = setting(
        30_000,
        between(100, 86_400_000),
        "a watch stream that is full and takes nothing so long loses watches",
    )
    watch_fragment_bytes: int = setting(
        2 * MIB, between(4_096, 1_024 * MIB), "largest response to a watch that takes fragments, in bytes"
    )
    watch_progress_notify_ms: int = setting(
        600_000, between(100, 86_400_000), "time between two words on progress to a watch that wants them"
    )
    watches_bytes_max: int = setting(
        256 * MIB,
        between(64 * 1024, 65_536 * MIB),
        "keys of all watches of this server, 1 KiB more for each",
    )
    peer_queue_bytes_max: int = setting(
        64 * MIB, between(1 * MIB, 4_096 * MIB), "bytes of messages that wait for one peer"
    )
    session_timeout_ms: int = setting(
        60_000, between(1_000, 86_400_000), "silence of a client after which its session may expire"
    )
    request_timeout_ms: int = setting(
        7_000, between(100, 600_000), "how long a request without a deadline may wait for the log"
    )
    shutdown_grace_ms: int = setting(
        5_000, between(0, 600_000), "how long a server that stops waits for requests in flight"
    )
    snapshot_log_bytes: int = setting(
        64 * MIB,
        between(64 * 1024, 65_536 * MIB),
        "log after which a snapshot is taken, and dropped; the size of a snapshot, where that is more",
    )
    snapshot_rate_bytes_per_s: int = setting(
        32 * MIB,
        between(64 * 1024, 65_536 * MIB),
        "how fast a snapshot is sent to a server that is behind the log",
    )
    quota_backend_bytes: int = setting(
        0,
        between(-1, 1_048_576 * MIB),
        "what the key-value store may grow to, in bytes; 0 is 2 GiB, -1 no limit",
    )
    auto_compaction_mode: str = setting(
        "periodic", one_of(*COMPACTION_MODES), "what automatic compaction keeps: periodic or revision"
    )
    auto_compaction_retention: str = setting(
        "0",
        check_retention,
        "how much of it: hours or 10m, 1h30m (periodic), or revisions; 0 compacts nothing",
    )
    read_lease_ms: int = setting(
        0,
        between(0, 10_000),
        "how long the leader serves reads on one word of a quorum; 0: asks for each. Needs clocks that keep the bound",
    )
    read_lease_drift_percent: int = setting(
        10,
        between(0, 1_000),
        "by how much a member's clock may run faster than another's, where reads are leased",
    )
    quorum_reads: int = setting(
        0,
        between(0, 1),
        "1: servers that do not lead ask a quorum of acceptors for what they read, not the leader",
    )
    phase2_quorum: int = setting(
        0, between(0, 127), "members that decide an entry (Flexible Paxos); 0 is a majority"
    )

    def validate(self) -> None:
        """Raises ConfigError, with a sentence that names the flag, where a value or a relation is wrong."""
        _check_fields(self)
        if self.tick_ms > self.heartbeat_ms:
            raise ConfigError(
                f"--tick-ms {self.tick_ms} is longer than --heartbeat-interval {self.heartbeat_ms}: "
                "time is counted in ticks; shorten the tick"
            )
        if self.election_timeout_ms < 5 * self.heartbeat_ms:
            raise ConfigError(
                f"--election-timeout {self.election_timeout_ms} is less than 5 times --heartbeat-interval "
                f"{self.heartbeat_ms}: a few late heartbeats would depose a healthy leader"
            )
        if self.read_hold_us > self.election_timeout_ms * 1_000:
            raise ConfigError(
                f"--read-lease-ms {self.read_lease_ms} and --read-lease-drift-percent {self.read_lease_drift_percent} "
                f"make members wait for longer than --election-timeout {self.election_timeout_ms} before they follow "
                "another leader: shorten the lease"
            )
        if self.entry_bytes_max < self.frame_bytes_max + 4:
            raise ConfigError(
                f"--entry-bytes-max {self.entry_bytes_max} cannot hold a request of --max-request-bytes "
                f"{self.request_bytes_max}; it must be at least {self.frame_bytes_max + 4}"
            )
        if self.pending_bytes_max < self.entry_bytes_max:
            raise ConfigError(
                f"--pending-bytes-max {self.pending_bytes_max} is less than --entry-bytes-max "
                f"{self.entry_bytes_max}: what may be proposed must be allowed to wait"
            )
        check_retention_in(self.auto_compaction_mode, self.auto_compaction_retention)

    @property
    def quota_bytes(self) -> int:
        """``quota_backend_bytes`` as the state machine has it, where 0 is no limit."""
        return max(0, self.quota_backend_bytes or QUOTA_BYTES)

    @property
    def frame_bytes_max(self) -> int:
        """The largest frame that a server takes: one command of ``request_bytes_max``, and its wrapping."""
        return self.request_bytes_max + FRAME_OVERHEAD_BYTES

    @property
    def read_hold_us(self) -> int:
        """How long a member follows nobody else, once it has confirmed that a leader leads (paxos/leases.py)."""
        return self.read_lease_ms * (100 + self.read_lease_drift_percent) * 10

    @property
    def heartbeat_ticks(self) -> int:
        """``heartbeat_ms`` in whole ticks, at least one."""
        return max(1, round(self.heartbeat_ms / self.tick_ms))

    @property
    def election_timeout_ticks(self) -> int:
        """``election_timeout_ms`` in whole ticks, rounded up."""
        return -(-self.election_timeout_ms // self.tick_ms)


DEFAULT_CLIENT_URLS = ("http://127.0.0.1:2379",)
DEFAULT_PEER_URLS = ("http://127.0.0.1:2380",)


@dataclass(frozen=True)
class ServerConfig:
    """One server: its name, its addresses, where its data lies, and who its peers are.

    What is left empty follows from the rest: see :attr:`directory`, :attr:`client_urls`, :attr:`members`.
    """

    name: str = setting("default", check_name, "name of this member")
    data_dir: str = setting("", check_text, "directory of its data; NAME.paxos where not given")
    listen_client_urls: tuple[str, ...] = setting(
        DEFAULT_CLIENT_URLS, check_urls, "addresses to take clients on, comma-separated"
    )
    advertise_client_urls: tuple[str, ...] = setting(
        (), check_urls, "addresses under which clients reach it; --listen-client-urls where not given"
    )
    listen_peer_urls: tuple[str, ...] = setting(
        DEFAULT_PEER_URLS, check_urls, "addresses to take peers on, comma-separated"
    )
    listen_http_urls: tuple[str, ...] = setting(
        (),
        check_urls,
        "addresses to serve etcd's JSON over HTTP on (needs the extra gateway); none where not given",
    )
    cors: tuple[str, ...] = setting(
        (),
        check_origins,
        "web pages that may use --listen-http-urls, by their origins; none where not given, * for all",
    )
    initial_advertise_peer_urls: tuple[str, ...] = setting(
        (),
        check_urls,
        "address under which peers reach it; what --initial-cluster says of it where not given",
    )
    initial_cluster: str = setting(
        "", check_initial_cluster, "all members, n1=http://host:2380,...; this one alone where not given"
    )
    peer_dial_urls: str = setting(
        "",
        check_initial_cluster,
        "where this server dials some peers in place of what --initial-cluster says (NAT, a proxy), "
        "n2=http://host:port,...",
    )
    initial_cluster_token: str = setting(
        "paxos-cluster", check_text, "keeps clusters that were started alike apart"
    )
    initial_cluster_state: str = setting(
        "new", one_of(*CLUSTER_STATES), "new, or existing where it joins a cluster that runs"
    )
    machine: str | None = setting(
        None, check_machine, "state machine to serve, package.module:Class; the key-value store by default"
    )
    log_level: str = setting("info", one_of(*LOG_LEVELS), "debug, info, warning or error")
    log_format: str = setting("text", one_of(*LOG_FORMATS), "text (key=value) or json (an object a line)")
    tuning: Tuning = field(default_factory=Tuning)
    joined_ids: tuple[int, int] | None = field(default=None, repr=False)
    """Cluster id and member id of a server that has them from a cluster that runs: see :meth:`joined_as`."""
    restored_from: str = field(default="", repr=False)
    """The checksum of the backup that its cluster is founded on; empty: founded on nothing."""

    def validate(self) -> None:
        """Raises ConfigError, with a sentence that names the flag, where a value or a relation is wrong."""
        _check_fields(self)
        self.tuning.validate()
        for flag, urls in (
            ("--listen-client-urls", self.listen_client_urls),
            ("--listen-peer-urls", self.listen_peer_urls),
        ):
            if not urls:
                raise ConfigError(f"{flag} is empty: a server needs an address to listen on")
        listening = {
            "--listen-client-urls": self.listen_client_urls,
            "--listen-peer-urls": self.listen_peer_urls,
            "--listen-http-urls": self.listen_http_urls,
        }
        for (one, urls), (other, others) in combinations(listening.items(), 2):
            both = set(map(url_address, urls)) & set(map(url_address, others))
            if both:
                raise ConfigError(
                    f"{one} and {other} both name {', '.join(sorted(both))}; "
                    "clients, peers and HTTP need ports of their own"
                )
        if self.machine is not None:
            check_store_alone(self.tuning.quota_backend_bytes, self.tuning.auto_compaction_retention)
        _check_reachable("--advertise-client-urls", self.client_urls)
        if len(self.initial_advertise_peer_urls) > 1:
            raise ConfigError("--initial-advertise-peer-urls names more than one URL; a member has one")
        self._validate_cluster()

    def _validate_cluster(self) -> None:
        members = self.members
        if self.name not in members:
            raise ConfigError(
                f"--initial-cluster names {', '.join(members)}, but not this member, --name {self.name}"
            )
        _check_reachable("--initial-advertise-peer-urls", (self.peer_url,))
        advertised = [url.rstrip("/") for url in self.initial_advertise_peer_urls]
        if advertised and advertised != [members[self.name]]:
            raise ConfigError(
                f"--initial-cluster says {self.name}={members[self.name]}, "
                f"--initial-advertise-peer-urls says {advertised[0]}; they must be the same"
            )
        if self.name in self.peer_dial:
            raise ConfigError(
                f"--peer-dial-urls names {self.name}, which is this server itself: it says where others are dialed"
            )
        phase2 = self.tuning.phase2_quorum
        if phase2 > len(members) and not self.joins:
            raise ConfigError(f"--phase2-quorum {phase2} is more than the {len(members)} members there are")

    @property
    def directory(self) -> Path:
        """Where the data lies: ``data_dir``, or ``NAME.paxos`` in the working directory."""
        return Path(self.data_dir or f"{self.name}.paxos")

    @cached_property
    def members(self) -> Mapping[str, str]:
        """Name to peer URL of every initial member; this one alone where ``initial_cluster`` is empty."""
        if self.initial_cluster:
            return parse_initial_cluster(self.initial_cluster)
        own = self.initial_advertise_peer_urls or self.listen_peer_urls
        return {self.name: own[0].rstrip("/")}

    @cached_property
    def peer_dial(self) -> Mapping[str, str]:
        """Name to URL, of the peers that are dialed elsewhere than where they say they are reached.

        A name that no member has yet counts from when one has it.
        """
        return parse_initial_cluster(self.peer_dial_urls) if self.peer_dial_urls else {}

    def dial_url(self, name: str, peer_url: str) -> str:
        """Where this server dials the member ``name`` that says it is reached under ``peer_url``.

        What ``--peer-dial-urls`` says stands in for the address that ``--initial-cluster`` gives, not for a later one.
        """
        known = self.members.get(name, peer_url)
        return self.peer_dial.get(name, peer_url) if url_address(known) == url_address(peer_url) else peer_url

    @property
    def joins(self) -> bool:
        """Whether it comes to a cluster that runs, or to one that has changed: its ids do not follow from the flags."""
        return self.initial_cluster_state == "existing"

    @property
    def urls_to_ask(self) -> list[str]:
        """Where a server that joins asks who the members are: all in ``initial_cluster`` but itself."""
        return [self.dial_url(name, url) for name, url in self.members.items() if name != self.name]

    def joined_as(self, cluster_id: int, member_id: int) -> "ServerConfig":
        """The same, with ids that a running cluster has given it, or that are in its data directory.

        For every start of a server that has joined, and of any that is started with ``existing``: by then addresses,
        and so what ids are made of, may have changed.
        """
        return replace(self, joined_ids=(cluster_id, member_id))

    @property
    def peer_url(self) -> str:
        """Under which the peers reach this server."""
        return self.members[self.name]

    @property
    def client_urls(self) -> tuple[str, ...]:
        """Under which clients reach this server."""
        return tuple(url.rstrip("/") for url in self.advertise_client_urls or self.listen_client_urls)

    @cached_property
    def cluster_id(self) -> int:
        """The same on every member that was given the same token and initial cluster; or what it was given."""
        if self.joined_ids is not None:
            return self.joined_ids[0]
        named = [f"{name}={url}" for name, url in sorted(self.members.items())]
        # Members that begin with different states are not of one cluster.
        founded_on = [f"restored from {self.restored_from}"] if self.restored_from else []
        return _id_of("cluster", self.initial_cluster_token, *named, *founded_on)

    @property
    def member_ids(self) -> dict[str, int]:
        """Name to member id, for every initial member; 0 for the others of one that has joined: it was not told."""
        if self.joined_ids is not None:
            return {name: self.joined_ids[1] if name == self.name else 0 for name in self.members}
        token = self.initial_cluster_token
        return {name: member_id_of(name, url, token) for name, url in self.members.items()}

    @property
    def member_id(self) -> int:
        """The id of this member."""
        return self.member_ids[self.name]


def member_id_of(name: str, peer_url: str, token: str) -> int:
    """The id of a member, from what names it."""
    return _id_of("member", token, name, peer_url)


def _id_of(*parts: str) -> int:
    """63 bits, never 0. Each part goes in with its length: two lists that join alike have different ids."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        data = part.encode()
        hashed.update(len(data).to_bytes(4, "big") + data)
    return int.from_bytes(hashed.digest(), "big") >> (64 - ID_BITS) or 1


def _check_reachable(flag: str, urls: tuple[str, ...]) -> None:
    for url in urls:
        if urlsplit(url).hostname in UNSPECIFIED_HOSTS:
            raise ConfigError(
                f"nobody can reach this server under {url}; say with {flag} what its address is"
            )


def _check_fields(config: ServerConfig | Tuning) -> None:
    """Checks each value as it is: what was written in Python is not converted."""
    for each in fields(config):
        option = _BY_FIELD.get(each.name)
        if option is None:
            continue
        value = getattr(config, each.name)
        if type(value) is not option.kind and value is not option.default:
            raise ConfigError(f"--{option.flag}: {value!r} is not a {option.kind.__name__}")
        try:
            option.check(value)
        except ConfigError as error:
            raise ConfigError(f"--{option.flag}: {error}") from None


# ---- where settings come from ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: how it is called in each source, and what it means."""

    field: str
    """The field of ServerConfig or Tuning, and the key in ``flags`` of :func:`load_config`."""
    flag: str
    """On the command line, without the leading dashes; also the key in a TOML file."""
    env: str
    default: Any
    description: str
    tuning: bool
    """Whether it belongs to Tuning."""
    check: Check

    @property
    def kind(self) -> type:
        """``int``, ``tuple`` (of URLs, comma-separated) or ``str``."""
        return str if self.default is None else type(self.default)


def _options() -> tuple[Option, ...]:
    found = []
    for owner in (ServerConfig, Tuning):
        for each in fields(owner):
            if each.metadata:
                flag = each.metadata["flag"] or each.name.replace("_", "-")
                env = ENVIRONMENT_PREFIX + flag.upper().replace("-", "_")
                description, check = each.metadata["description"], each.metadata["check"]
                found.append(Option(each.name, flag, env, each.default, description, owner is Tuning, check))
    return tuple(found)


OPTIONS = _options()
_BY_FIELD = {option.field: option for option in OPTIONS}
_BY_KEY = {option.flag: option for option in OPTIONS} | {o.field.replace("_", "-"): o for o in OPTIONS}


def load_config(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ServerConfig:
    """The configuration of a server, from all sources, validated.

    ``flags`` is keyed by :attr:`Option.field`; None and () mean that the flag was not given. ``environ`` is
    ``os.environ`` by default. ``file`` is a TOML file; PAXOS_RSM_CONFIG_FILE may name it too.
    Raises ConfigError, which names the source of a bad value.
    """
    if environ is None:
        environ = os.environ
    if file is None and environ.get(CONFIG_FILE_VARIABLE):
        file = Path(environ[CONFIG_FILE_VARIABLE])
    values: dict[str, Any] = {} if file is None else _from_file(file)
    for option in OPTIONS:
        if option.env in environ:
            source = f"environment variable {option.env}"
            values[option.field] = _checked(option, environ[option.env], source)
    for name, value in (flags or {}).items():
        if name not in _BY_FIELD:
            raise ConfigError(f"there is no setting {name!r}")
        if value is not None and value != ():
            option = _BY_FIELD[name]
            values[name] = _checked(option, value, f"--{option.flag}")
    tuned = {name: values.pop(name) for name in list(values) if _BY_FIELD[name].tuning}
    config = ServerConfig(**values, tuning=Tuning(**tuned))
    config.validate()
    return config


def _from_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, a number of thousands of digits
        raise ConfigError(f"{file} is not a TOML file: {error}") from None
    values: dict[str, Any] = {}
    for key, value in table.items():
        option = _BY_KEY.get(key.replace("_", "-"))
        if option is None:
            raise ConfigError(f"{file}: there is no setting {key!r}; `paxos-rsm server --help` lists them")
        if option.field in values:
            raise ConfigError(f"{file}: {key!r} is set twice, under two spellings of its name")
        values[option.field] = _checked(option, value, f"{key!r} in {file}")
    return values


def _checked(option: Option, value: Any, source: str) -> Any:
    """``value`` as the type of its field. Raises ConfigError, which begins with ``source``."""
    try:
        converted = _converted(option, value)
        option.check(converted)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return converted


def _converted(option: Option, value: Any) -> Any:
    if option.kind is int:
        if isinstance(value, str):
            try:
                return int(value.strip())
            except ValueError:
                raise ConfigError(f"{value!r} is not a whole number") from None
        return value
    if option.kind is tuple:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise ConfigError(f"{value!r} is neither a text nor a list of texts")
    if isinstance(value, Path):
        return str(value)
    if option.field == "log_level" and isinstance(value, str):
        return {"warn": "warning"}.get(value.lower(), value.lower())
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{value!r} is not a text")
    return value or option.default
