"""Gaps are read off acknowledgements, and compared with the goals."""

import pytest

from paxos_rsm.testing.chaos.gaps import Gap, Occurrence, calm_gap_ms, figures, longest_gap, percentile


def steady(begin: int, end: int, step: int = 10) -> list[float]:
    return [float(at) for at in range(begin, end, step)]


OUTAGE = [*steady(0, 1_000), *steady(1_400, 3_000)]


@pytest.mark.parametrize(
    ("begin", "end", "found"),
    [
        (1_000, 2_000, Gap(990, 1_400)),  # it begins with the last acknowledgement before the fault
        (1_200, 2_000, Gap(990, 1_400)),  # and counts whole where it had begun before
        (500, 1_100, Gap(990, 1_400)),  # or lasts longer than the window
        (1_505, 2_000, Gap(1_500, 1_510)),
    ],
)
def test_the_longest_gap_that_overlaps_the_window(begin: float, end: float, found: Gap) -> None:
    assert longest_gap(OUTAGE, begin, end) == found


def test_a_gap_that_never_ends_lasts_to_the_end_of_the_run() -> None:
    assert longest_gap(steady(0, 1_000), 900, 5_000, 9_000) == Gap(990, 9_000)
    assert longest_gap([], 900, 5_000) == Gap(0, 5_000)


def test_a_gap_before_the_first_acknowledgement_counts_from_the_start() -> None:
    assert longest_gap([800.0, 810.0], 100, 1_000, 815).ms == 800


def test_without_faults() -> None:
    assert calm_gap_ms(OUTAGE, [(950, 1_450)], 3_000) == 10
    assert calm_gap_ms(OUTAGE, [(2_000, 2_100)], 3_000) == 410
    assert calm_gap_ms(OUTAGE, [(0, 3_000)], 3_000) is None
    assert calm_gap_ms([], [], 3_000) is None


def test_percentiles_by_nearest_rank() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([7], 99) == 7
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 51), 99) == 50
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def occurrence(kind: str, gap_ms: float, *, combined: bool = False, changes: int = 1) -> Occurrence:
    return Occurrence(
        0, kind, 0, 1, ("n1",), "", combined, gap=Gap(0, gap_ms), held_gap_ms=gap_ms, leader_changes=changes
    )


def test_figures_of_a_kind_leave_out_what_was_combined() -> None:
    found = figures(
        [
            *(occurrence("leader-kill", gap_ms) for gap_ms in (500, 100, 300)),
            occurrence("leader-kill", 9_000, combined=True),
            occurrence("all-kill", 2_500),
        ]
    )
    assert [row.kind for row in found] == ["leader-kill", "all-kill"]
    kill = found[0]
    assert (kill.gaps_ms, kill.median_ms, kill.p99_ms, kill.max_ms) == ((100, 300, 500), 300, 500, 500)
    assert kill.missed == []
    assert found[1].goal is None
    assert found[1].missed == []


@pytest.mark.parametrize(
    ("kind", "gaps_ms", "missed"),
    [
        ("leader-kill", [100, 401, 500], ["median 401 ms, goal 400 ms"]),
        ("leader-kill", [100, 200, 1_001], ["p99 1001 ms, goal 1000 ms"]),
        ("leader-kill", [2_001], ["median 2001 ms", "p99 2001 ms", "longest 2001 ms"]),
        ("follower-kill", [199], []),
        ("follower-kill", [201], ["longest 201 ms, goal 200 ms"]),
        ("leader-pause", [2_000], []),
    ],
)
def test_goals(kind: str, gaps_ms: list[float], missed: list[str]) -> None:
    (row,) = figures(occurrence(kind, gap_ms) for gap_ms in gaps_ms)
    assert len(row.missed) == len(missed)
    for told, wanted in zip(row.missed, missed, strict=True):
        assert told.startswith(wanted)


def test_a_flapping_link_may_change_the_leader_once() -> None:
    (once,) = figures([occurrence("flapping-link", 5_000, changes=1)])
    (twice,) = figures([occurrence("flapping-link", 10, changes=2)])
    assert once.missed == []
    assert twice.missed == ["2 changes of leader, goal 1"]
