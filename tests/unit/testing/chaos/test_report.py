"""The report is one well-formed page that needs nothing else, and says what is wrong before anything else."""

import re
from html.parser import HTMLParser

from paxos_rsm.testing.chaos.kinds import Goal
from paxos_rsm.testing.chaos.outcome import Check
from paxos_rsm.testing.chaos.report import goal_text, render, role_lanes
from tests.unit.testing.chaos.samples import occurrences, sample

VOID = {"meta", "br", "line", "rect", "path"}


class Checker(HTMLParser):
    """Every element that is opened is closed, in order; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{name}={value}" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> tuple[str, Checker]:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return " ".join(" ".join(checker.text).split()), checker


def test_a_good_run() -> None:
    page = render(sample())
    text, checker = read(page)
    assert not checker.outside
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)
    for words in (
        "linearizable: 8,415 operations, no write lost, none executed twice",
        "seed 7",
        "paxos-rsm chaos --seed 7",
        "killed n1, the leader",
        "median 400 ms, p99 1,000 ms, longest 2,000 ms",
        "met",
        "Without any fault the longest was 31 ms",
    ):
        assert words in text
    assert "missed:" not in text
    assert page.index("verdict ok") < page.index("<svg")


def test_a_violation_comes_first_with_its_drawing() -> None:
    wrong = Check(
        "linearizable, key by key", "violation", "read <b> of k1", ("one & two",), "<svg><g></g></svg>"
    )
    page = render(sample(checks=[Check("fine", "ok", "it is"), wrong]))
    text, _ = read(page)
    assert "VIOLATION: linearizable, key by key" in text
    assert "read &lt;b&gt; of k1" in page
    assert "<li>one &amp; two</li>" in page
    assert page.index("<svg><g>") < page.index("What happened")


def test_what_is_missing_is_said_aloud() -> None:
    skipped = {fault.number: "this machine lacks shim" for fault in sample().plan.faults}
    text, _ = read(render(sample(missing=("shim",), skipped=skipped, occurrences=[])))
    assert "Lacking on this machine: a library before each server's disk and clock" in text
    assert "leader-kill did not strike once: this machine lacks shim" in text


def test_missed_goals_are_named() -> None:
    text, _ = read(render(sample(occurrences=occurrences(2, "follower-kill"))))
    assert "missed: longest 310 ms, goal 200 ms" in text


def test_many_gaps_of_a_kind_get_a_histogram() -> None:
    assert "leader-kill: 12 gaps" in render(sample(occurrences=occurrences(12)))
    assert "gaps</h2>" not in render(sample())


def test_an_empty_run_renders() -> None:
    read(render(sample(occurrences=[], seconds=[], latencies={}, events=[], checks=[], statuses={})))


def test_lanes_follow_the_events() -> None:
    first, second, third = role_lanes(sample().events, ["n1", "n2", "n3"], 60)
    assert [(each.begin_s, each.end_s, each.style) for each in first.segments] == [
        (0, 10, "leader"),
        (10, 60, "down"),
    ]
    assert [each.style for each in second.segments] == ["follower", "leader"]
    assert "ballot 2" in second.segments[1].title
    assert third.segments == ()


def test_goals_in_words() -> None:
    assert goal_text(None) == "–"
    assert goal_text(Goal(max_ms=200)) == "longest 200 ms"
    assert goal_text(Goal(leader_changes_max=1)) == "at most 1 change of leader"
