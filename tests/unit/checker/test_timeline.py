import html.parser
import re
import xml.etree.ElementTree as ElementTree

import pytest

from paxos_rsm.checker import Operation, Result, Verdict, check, check_revisions, draw_html, draw_svg
from paxos_rsm.checker.models import Register

SVG = "{http://www.w3.org/2000/svg}"


def history() -> list[Operation]:
    return [
        Operation(1, "write", "k", "a", None, 0, 3),
        Operation(2, "write", "k", "b", None, 1, None, "unknown"),
        Operation("c", "write", "k", "<c & \x00 \ud800 'd'>", None, 1, 2, "fail"),
        Operation(2, "read", "k", None, "b", 4, 5),
        Operation(1, "read", "k", None, "a", 6, 7),
        Operation(1, "read", "other", None, None, 0, 1),
    ]


def classes(svg: str, tag: str) -> list[str]:
    return [each.get("class", "") for each in ElementTree.fromstring(svg).iter(SVG + tag)]


def test_a_violation_is_drawn_red_and_the_order_as_a_line() -> None:
    ops = history()
    result = check(ops, Register)
    assert result.verdict is Verdict.VIOLATION
    svg = draw_svg(ops, result, model=Register)
    bars = [name for name in classes(svg, "rect") if "bar" in name]
    assert sorted(bars) == ["bar", "bar", "bar bad", "bar fail", "bar unknown"], "the other key is not drawn"
    assert classes(svg, "polyline") == ["order"]
    assert len(classes(svg, "circle")) == len(result.prefix) == 3
    texts = [each.text or "" for each in ElementTree.fromstring(svg).iter(SVG + "text")]
    assert "✗ read() → 'a'" in " ".join(texts)
    assert {"process 1", "process 2", "process c"} <= set(texts)
    titles = [each.text or "" for each in ElementTree.fromstring(svg).iter(SVG + "title")]
    assert sum("fits nowhere" in title for title in titles) == 1
    assert sum("never learned" in title for title in titles) == 1


def test_the_points_go_forward_and_stay_in_their_bars() -> None:
    ops = history()[:4]
    svg = draw_svg(ops, check(ops, Register), model=Register)
    line = next(ElementTree.fromstring(svg).iter(SVG + "polyline")).get("points") or ""
    xs = [float(point.split(",")[0]) for point in line.split()]
    assert xs == sorted(xs)
    assert len(xs) == 3


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing(count: int) -> None:
    ElementTree.fromstring(draw_svg(history()[:count]))
    ElementTree.fromstring(draw_html(history()[:count]).split("\n", 1)[1])


def test_without_a_result_all_keys_are_drawn_and_one_may_be_chosen() -> None:
    ops = history()
    assert sum("bar" in name for name in classes(draw_svg(ops), "rect")) == 6
    assert sum("bar" in name for name in classes(draw_svg(ops, key="other"), "rect")) == 1
    passed = [op for op in ops if op.key == "other"]
    assert len(classes(draw_svg(passed, check(passed, Register)), "circle")) == 1


def test_overlapping_operations_of_one_process_have_rows_of_their_own() -> None:
    ops = [Operation(1, "write", "k", "a", None, 0, 3), Operation(1, "write", "k", "b", None, 1, 2)]
    rows = {
        each.get("y") for each in ElementTree.fromstring(draw_svg(ops)).iter(SVG + "rect") if each.get("rx")
    }
    assert len(rows) == 2


def test_a_long_history_is_cut_to_what_matters() -> None:
    ops = [
        Operation(1, "write", "k", f"v{number}", None, 2 * number, 2 * number + 1) for number in range(500)
    ]
    ops += [
        Operation(3, "write", "k", f"lost {number}", None, number, None, "unknown") for number in range(300)
    ]
    stale = Operation(2, "read", "k", None, "v7", 800.5, 801.5)
    ops.append(stale)
    result = check(ops, Register)
    assert result.unplaced == (stale,)
    page = draw_html(ops, result, model=Register, operations_max=40, title="stale & bad")
    assert "40 of 801 operations" in page
    assert "read() → &#x27;v7&#x27;" in page
    assert "write(&#x27;v7&#x27;)" in page, "who wrote what it tells"
    assert "write(&#x27;v400&#x27;)" in page, "what it should have told"
    assert "write(&#x27;v450&#x27;)" not in page
    assert "<title>stale &amp; bad</title>" in page


def test_the_page_is_well_formed_and_asks_nobody_for_anything() -> None:
    ops = history()
    page = draw_html(ops, check(ops, Register), model=Register)
    doctype, _, document = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    root = ElementTree.fromstring(document)
    assert "violation" in "".join(root.itertext())
    assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)
    hosts = set(re.findall(r"https?://([^/\"]+)", page))
    assert hosts == {"www.w3.org"}, "the names of the formats, which are not fetched"
    html.parser.HTMLParser().feed(page)
    page.encode("utf-8")


def test_a_store_with_revisions_and_an_undecided_check() -> None:
    ops = [
        Operation(1, "put", "a", "1", {"revision": 2}, 0, 1),
        Operation(1, "put", "b", "1", {"revision": 3}, 0, 1),
        Operation(2, "get", "a", None, {"revision": 2, "kv": {"value": "1"}}, 2, 3),
    ]
    result = check_revisions(ops)
    assert sum("bar" in name for name in classes(draw_svg(ops, result), "rect")) == 3
    assert "bar bad" in classes(draw_svg(ops, result), "rect")
    good = check_revisions(ops[:2])
    assert len(classes(draw_svg(ops[:2], good), "circle")) == 2
    unknown = Result(verdict=Verdict.UNKNOWN, reason="not decided", key="a", undecided=("a",))
    assert "not decided" in draw_html(ops, unknown)
    assert not classes(draw_svg(ops, unknown), "polyline")
