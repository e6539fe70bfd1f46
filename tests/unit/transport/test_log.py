import logging

import pytest

from paxos_rsm.transport import log
from paxos_rsm.transport.log import RepeatLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repeat_log(clock: Clock, caplog: pytest.LogCaptureFixture) -> RepeatLog:
    caplog.set_level(logging.DEBUG)
    return RepeatLog(logging.getLogger("test"), clock)


def test_the_same_is_said_once(repeat_log: RepeatLog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        repeat_log.say(logging.WARNING, "a", "away")
        repeat_log.say(logging.INFO, "b", "away")
    assert [(r.levelname, r.message) for r in caplog.records] == [("WARNING", "away"), ("INFO", "away")]


def test_a_change_is_said(repeat_log: RepeatLog, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("away", "back", "away"):
        repeat_log.say(logging.INFO, "a", text)
    assert caplog.messages == ["away", "back", "away"]


def test_it_is_said_again_after_a_while(
    repeat_log: RepeatLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in (0, 299, 301, 302):
        repeat_log.say(logging.INFO, "a", "100% away")
    assert caplog.messages == ["100% away"] * 2


def test_what_changes_all_the_time_is_said_so_often_a_minute(
    repeat_log: RepeatLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(120):
        clock.now = number * 0.5
        repeat_log.say(logging.INFO, "a", ("open", "broken")[number % 2])
        repeat_log.say(logging.INFO, "b", "fine")
    assert len(caplog.messages) == log.CHANGES_A_MINUTE_MAX + 2
    assert "changes all the time" in caplog.messages[-1]
    clock.now = 60.0
    repeat_log.say(logging.INFO, "a", "open")
    assert caplog.messages[-1] == "open"


def test_subjects_are_bounded(repeat_log: RepeatLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SUBJECTS_MAX", 3)
    for number in range(10):
        repeat_log.say(logging.INFO, str(number), "x")
    assert list(repeat_log._said) == ["7", "8", "9"]
