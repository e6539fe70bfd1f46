"""Measures that make no sense are refused before anything starts."""

from dataclasses import fields, replace

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.paxos.settings import Settings


def test_the_defaults_are_valid() -> None:
    Settings().validate()


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_every_measure_is_at_least_one(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(Settings(), **{name: 0}).validate()


def test_an_election_time_out_outlasts_lost_heartbeats() -> None:
    replace(Settings(), heartbeat_ticks=3, election_ticks=9).validate()
    with pytest.raises(ConfigError, match="three heartbeats"):
        replace(Settings(), heartbeat_ticks=3, election_ticks=8).validate()
