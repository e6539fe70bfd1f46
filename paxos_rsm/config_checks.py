"""What one setting may be: checks, each of which says what is wrong with a value as half a sentence.

The other half names the setting and where it was read (config.py).
"""

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

from paxos_rsm.errors import ConfigError

__all__ = [
    "UNSPECIFIED_HOSTS",
    "Check",
    "between",
    "check_initial_cluster",
    "check_machine",
    "check_name",
    "check_origins",
    "check_retention",
    "check_retention_in",
    "check_store_alone",
    "check_text",
    "check_urls",
    "one_of",
    "parse_initial_cluster",
    "setting",
    "url_address",
]

UNSPECIFIED_HOSTS = frozenset({"0.0.0.0", "::", ""})  # listen everywhere, can be reached nowhere
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ORIGIN_PATTERN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")  # as browsers write it
RETENTION_PATTERN = re.compile(r"\d{1,18}|(?=.{1,18}\Z)(\d+(ms|s|m|h))+", re.ASCII)
MACHINE_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Check = Callable[[Any], None]
"""Raises ConfigError with the second half of a sentence that starts with the setting."""


def url_address(url: str) -> str:
    """``host:port`` of ``http://host:port``. Raises ConfigError where it is anything else."""
    wanted = "a URL looks like http://127.0.0.1:2379"
    if not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r} is not a URL; {wanted}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL ({error}); {wanted}") from None
    if parts.scheme == "https":
        raise ConfigError(f"{url!r} asks for TLS, which this version does not have yet; use http://")
    if parts.scheme != "http":
        raise ConfigError(f"{url!r} has no http:// in front; {wanted}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"{url!r} has more than a host and a port; {wanted}")
    if not parts.hostname or not port:
        raise ConfigError(f"{url!r} lacks a host or a port; {wanted}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def parse_initial_cluster(text: str) -> dict[str, str]:
    """Name to peer URL, from ``n1=http://host:port,n2=...``. Raises ConfigError where it does not parse."""
    members: dict[str, str] = {}
    for part in (each.strip() for each in text.split(",")):
        name, equals, url = part.partition("=")
        if not equals:
            raise ConfigError(f"{part!r} is not name=URL; write n1=http://host:2380,n2=http://host:2380")
        check_name(name)
        url_address(url)
        if name in members:
            raise ConfigError(f"member {name!r} is named twice; each has one name and one peer URL")
        members[name] = url.rstrip("/")
    addresses = [url_address(url) for url in members.values()]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ConfigError(f"two members share the peer address {address}")
    return members


def check_name(value: str) -> None:
    if not NAME_PATTERN.fullmatch(value):
        raise ConfigError(
            f"{value!r} cannot be a name; it has 1 to 63 letters, digits, '.', '_' or '-', "
            "and begins with a letter or a digit"
        )


def check_urls(values: tuple[str, ...]) -> None:
    addresses = [url_address(value) for value in values]
    if len(set(addresses)) != len(addresses):
        raise ConfigError(f"{', '.join(addresses)} names an address twice")


def check_origins(values: tuple[str, ...]) -> None:
    for value in values:
        if value != "*" and not ORIGIN_PATTERN.fullmatch(value):
            raise ConfigError(
                f"{value!r} is not the origin of web pages; write https://host or http://host:port, or * for all"
            )


def check_initial_cluster(value: str) -> None:
    if value:
        parse_initial_cluster(value)


def check_machine(value: str | None) -> None:
    if value is not None and not MACHINE_PATTERN.fullmatch(value):
        raise ConfigError(f"{value!r} does not name a state machine; write package.module:Class")


def check_retention(value: str) -> None:
    """As etcd writes it; what comes of it machines/kv/autocompaction.py says."""
    if not RETENTION_PATTERN.fullmatch(value):
        raise ConfigError(
            f"{value!r} is neither a number (hours, or revisions) nor a time such as 10m or 1h30m"
        )


def check_retention_in(mode: str, retention: str) -> None:
    """Whether the two settings of automatic compaction go together."""
    if mode == "revision" and not retention.isdigit():
        raise ConfigError(
            f"--auto-compaction-retention {retention} is a time, and --auto-compaction-mode is revision: "
            "give a number of revisions, or --auto-compaction-mode periodic"
        )


def check_store_alone(quota_bytes: int, retention: str) -> None:
    """That another state machine is not given what only the key-value store has."""
    given = {"--quota-backend-bytes": bool(quota_bytes), "--auto-compaction-retention": retention != "0"}
    for flag, is_given in given.items():
        if is_given:
            raise ConfigError(f"{flag} is for the key-value store, and --machine names another: leave it out")


def check_text(value: str) -> None:
    if not value.isprintable():
        raise ConfigError(f"{value!r} has characters that cannot be printed")


def one_of(*choices: str) -> Check:
    def check(value: str) -> None:
        if value not in choices:
            raise ConfigError(f"{value!r} is not one of {', '.join(choices)}")

    return check


def between(least: int, most: int) -> Check:
    def check(value: int) -> None:
        if type(value) is not int:
            raise ConfigError(f"{value!r} is not a whole number")
        if not least <= value <= most:
            raise ConfigError(f"{value} is not within {least}..{most}")

    return check


def setting(default: Any, check: Check, description: str, flag: str = "") -> Any:
    """A field of a configuration, with what OPTIONS says of it; the flag is the field's name by default."""
    metadata = {"check": check, "description": description, "flag": flag}
    return field(default=default, metadata=metadata)
