"""The drawings are well-formed, and what they show stands where it belongs."""

from xml.etree import ElementTree

import pytest

from paxos_rsm.testing.chaos.charts import (
    LEFT,
    POINTS_MAX,
    RIGHT,
    WIDTH,
    Band,
    Lane,
    Segment,
    Series,
    histogram,
    nice_steps,
    timeline,
)

SVG = "{http://www.w3.org/2000/svg}"


def drawn(
    bands: list[Band], points: list[tuple[float, float | None]], seconds: float = 100.0
) -> ElementTree.Element:
    series = [Series("writes", "writes", tuple(points))]
    lanes = [Lane("n1", (Segment(0, 50, "leader", "n1 <leads>"), Segment(50, 100, "down")))]
    return ElementTree.fromstring(timeline(seconds, bands, series, series, lanes))


@pytest.mark.parametrize(
    ("highest", "steps"),
    [
        (0, [0, 1]),
        (4, [0, 1, 2, 3, 4]),
        (430, [0, 200, 400, 600]),
        (0.9, [0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_steps_are_round_and_reach_the_top(highest: float, steps: list[float]) -> None:
    assert nice_steps(highest) == steps


def test_bands_and_lanes_stand_at_their_time() -> None:
    root = drawn([Band(25, 50, "leader-kill", "killed <n1>")], [(0.5, 10.0), (1.5, 12.0)])
    (band,) = (each for each in root.iter(f"{SVG}rect") if "band" in (each.get("class") or ""))
    inner = WIDTH - LEFT - RIGHT
    assert float(band.get("x", "0")) == pytest.approx(LEFT + inner / 4, abs=0.1)
    assert float(band.get("width", "0")) == pytest.approx(inner / 4, abs=0.1)
    assert band[0].text == "killed <n1>"
    roles = [each for each in root.iter(f"{SVG}rect") if "role" in (each.get("class") or "")]
    assert [each.get("class") for each in roles] == ["role leader", "role down"]
    names = [each.text for each in root.iter(f"{SVG}text")]
    assert {"n1", "leader-kill", "who leads", "100 s"} <= set(names)


def test_what_is_missing_breaks_the_line() -> None:
    root = drawn([], [(0, 1.0), (1, 2.0), (2, None), (3, 4.0)])
    path = next(root.iter(f"{SVG}path")).get("d") or ""
    assert path.count("M") == 2


def test_nothing_at_all_can_be_drawn() -> None:
    assert drawn([], [], 0.0).tag == f"{SVG}svg"


def test_an_hour_is_thinned_out() -> None:
    root = drawn([], [(float(at), 5.0) for at in range(3_600)], 3_600)
    path = next(root.iter(f"{SVG}path")).get("d") or ""
    assert path.count("L") < POINTS_MAX


def test_labels_of_bands_that_are_too_close_are_left_out() -> None:
    bands = [Band(10, 11, "one"), Band(10.1, 11, "two"), Band(60, 61, "three"), Band(80, 81, "three")]
    names = [each.text for each in drawn(bands, []).iter(f"{SVG}text") if each.get("class") == "bandname"]
    assert names == ["one", "three"]


def test_histogram_counts_every_value_once() -> None:
    values = [100.0, 101.0, 250.0, 990.0]
    root = ElementTree.fromstring(histogram(values, [("goal", 400.0)]))
    told = [each[0].text or "" for each in root.iter(f"{SVG}rect")]
    assert sum(int(text.rsplit(": ", 1)[1]) for text in told) == len(values)
    assert any(each.text == "goal" for each in root.iter(f"{SVG}text"))
