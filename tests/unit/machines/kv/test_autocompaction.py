"""When a store is compacted by itself: simulated hours, no clock."""

import pytest

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.kv.autocompaction import (
    HOUR_MS,
    AutoCompaction,
    CompactionMode,
    parse_retention,
)

PERIODIC, REVISION = CompactionMode.PERIODIC, CompactionMode.REVISION
MINUTE_MS = 60_000


def played(
    auto: AutoCompaction, minutes: int, revisions_a_minute: int = 1, start: int = 0
) -> list[tuple[int, int]]:
    """(minute, revision) of every compaction; revision 1 at minute 0, observed as often as it asks for."""
    compacted, found = -1, []
    for now_ms in range(start * MINUTE_MS, (start + minutes) * MINUTE_MS + 1, auto.interval_ms):
        revision = 1 + now_ms // MINUTE_MS * revisions_a_minute
        at = auto.observe(now_ms, revision, compacted)
        if at is not None:
            assert compacted < at <= revision
            compacted = at
            found.append((now_ms // MINUTE_MS, at))
    return found


def test_a_period_of_hours_keeps_them_and_is_looked_at_every_hour() -> None:
    assert played(AutoCompaction(PERIODIC, 3 * HOUR_MS), 420) == [
        (240, 61),  # at three hours there is nothing before revision 1
        (300, 121),
        (360, 181),
        (420, 241),
    ]


def test_a_short_period_is_looked_at_once_a_period() -> None:
    auto = AutoCompaction(PERIODIC, 10 * MINUTE_MS)
    assert auto.interval_ms == MINUTE_MS
    assert played(auto, 40) == [(20, 11), (30, 21), (40, 31)]


def test_revisions_are_kept_and_looked_at_every_five_minutes() -> None:
    assert played(AutoCompaction(REVISION, 100), 20, revisions_a_minute=15) == [
        (10, 51),
        (15, 126),
        (20, 201),
    ]


@pytest.mark.parametrize("auto", [AutoCompaction(PERIODIC, 5 * MINUTE_MS), AutoCompaction(REVISION, 3)])
def test_where_nothing_is_written_nothing_is_compacted_twice(auto: AutoCompaction) -> None:
    found = [auto.observe(minute * MINUTE_MS, 50, -1) for minute in range(20)]
    first = next(at for at in found if at is not None)
    assert first in (50, 47)
    assert all(auto.observe(minute * MINUTE_MS, 50, first) is None for minute in range(20, 90))


def test_what_somebody_else_has_compacted_is_left_alone() -> None:
    auto = AutoCompaction(REVISION, 10)
    assert [auto.observe(at * MINUTE_MS, 30, 25) for at in (0, 5, 10)] == [None, None, None]
    assert auto.observe(15 * MINUTE_MS, 50, 25) == 40


def test_a_new_leader_waits_for_a_whole_period() -> None:
    auto = AutoCompaction(PERIODIC, 10 * MINUTE_MS)
    played(auto, 25)
    auto.forget()
    assert played(auto, 15, start=100) == [(110, 101)]


def test_late_observations_keep_too_much_rather_than_too_little() -> None:
    auto = AutoCompaction(PERIODIC, 10 * MINUTE_MS)
    assert auto.observe(0, 5, -1) is None
    assert auto.observe(7 * MINUTE_MS, 70, -1) is None
    assert auto.observe(12 * MINUTE_MS, 120, -1) == 5
    assert auto.observe(40 * MINUTE_MS, 400, 5) == 120


@pytest.mark.parametrize(
    ("mode", "text", "retention"),
    [
        (PERIODIC, "1", HOUR_MS),
        (PERIODIC, "0", 0),
        (PERIODIC, "90s", 90_000),
        (PERIODIC, "1h30m", 5_400_000),
        (PERIODIC, "250ms", 250),
        (REVISION, "1000", 1000),
    ],
)
def test_retentions_are_read_as_in_etcd(mode: CompactionMode, text: str, retention: int) -> None:
    assert parse_retention(mode, text) == retention


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (PERIODIC, ""),
        (PERIODIC, "h"),
        (PERIODIC, "5d"),
        (PERIODIC, "-1"),
        (PERIODIC, "1h x"),
        (PERIODIC, "0s"),
        (PERIODIC, "1.5h"),
        (PERIODIC, "٣h"),
        (REVISION, "1h"),
        (REVISION, ""),
        (REVISION, "1" * 5000),
        (PERIODIC, "1" * 5000 + "h"),
    ],
)
def test_what_is_no_retention_is_refused(mode: CompactionMode, text: str) -> None:
    with pytest.raises(ConfigError, match="retention"):
        parse_retention(mode, text)


def test_a_retention_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="keeps nothing"):
        AutoCompaction(PERIODIC, 0)
