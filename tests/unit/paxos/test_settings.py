"""Measures that make no sense are refused before anything starts."""

from dataclasses import fields, replace

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.settings import Settings


def test_the_defaults_are_valid() -> None:
    Settings().validate()


MAY_BE_ZERO = ("read_lease_us", "read_lease_drift_percent", "quorum_reads")


@pytest.mark.parametrize("name", [f.name for f in fields(Settings) if f.name not in MAY_BE_ZERO])
def test_every_measure_is_at_least_one(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(Settings(), **{name: 0}).validate()


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_what_is_off_is_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(Settings(), **{name: -1}).validate()


def test_a_hold_outlasts_the_lease_by_the_drift_and_is_never_rounded_down() -> None:
    assert Settings(read_lease_us=1_000, read_lease_drift_percent=10).read_hold_us == 1_100
    assert Settings(read_lease_us=1, read_lease_drift_percent=1).read_hold_us == 2


def test_an_election_time_out_outlasts_lost_heartbeats() -> None:
    replace(Settings(), heartbeat_ticks=3, election_ticks=9).validate()
    with pytest.raises(ConfigError, match="three heartbeats"):
        replace(Settings(), heartbeat_ticks=3, election_ticks=8).validate()
