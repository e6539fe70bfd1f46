from dataclasses import replace

from paxos_rsm.client.patience import Lookout, Patience, Verdict

PATIENCE = Patience(tick_s=1, probe_s=2, connect_s=3, silent_s=5, stuck_s=10)


def looks(
    lookout: Lookout, start: int, end: int, heard: set[int], progressed: set[int] | None = None
) -> list[Verdict]:
    """One look a second, after what was heard in it, up to the verdict that the server is left."""
    verdicts = []
    for now in range(start, end):
        if now in heard:
            lookout.heard(now)
            if now in (progressed or set()):
                lookout.progressed()
        verdicts.append(lookout.look(now))
        if verdicts[-1].loss:
            break
        lookout.next_look(now)
    return verdicts


def started(patience: Patience = PATIENCE) -> Lookout:
    """Of a server that spoke once, when the stream was new."""
    lookout = Lookout(patience)
    lookout.connecting()
    assert lookout.start(0) == 1
    lookout.heard(0)
    return lookout


def test_silence_is_asked_about_and_then_the_end() -> None:
    verdicts = looks(started(), 1, 100, set())
    assert [verdict.probe for verdict in verdicts] == [False, True, True, True, False]
    assert verdicts[-1].loss == "it has been silent for 5.0 s"


def test_patience_with_silence_doubles_until_something_is_given() -> None:
    lookout = started(replace(PATIENCE, stuck_s=1_000))
    for limit in (5, 10, 20, 40, 80, 80):
        lookout.start(0)
        assert looks(lookout, 1, 1_000, set())[-1].loss == f"it has been silent for {limit}.0 s"
    lookout.start(0)
    lookout.heard(0)
    lookout.progressed()
    assert len(looks(lookout, 1, 1_000, set())) == 5


def test_a_server_that_never_spoke_is_left_earlier() -> None:
    lookout = started()
    for limit in (3, 6, 12):
        lookout.connecting()
        lookout.start(0)
        verdicts = looks(lookout, 1, 1_000, set())
        assert verdicts[-1].loss == f"it could not be reached within {limit}.0 s"
    lookout.connecting()
    lookout.start(0)
    assert not lookout.look(1).loss
    lookout.heard(1)
    lookout.next_look(1)
    assert len(looks(lookout, 2, 1_000, set())) == 5, "once it has spoken it has the time of any other"


def test_whoever_gives_what_is_owed_is_never_left() -> None:
    every = set(range(1, 100, 4))
    verdicts = looks(started(), 1, 100, every, every)
    assert not any(verdict.loss for verdict in verdicts)
    assert any(verdict.probe for verdict in verdicts)


def test_signs_of_life_alone_are_not_enough_and_patience_doubles() -> None:
    lookout = started()
    always = set(range(1_000))
    for limit in (10, 20, 40, 80, 160, 160):
        lookout.start(0)
        verdicts = looks(lookout, 1, 1_000, always)
        assert len(verdicts) == limit
        assert verdicts[-1].loss == f"it has given nothing that was asked of it for {limit}.0 s"
    lookout.start(0)
    lookout.heard(1)
    lookout.progressed()
    assert len(looks(lookout, 1, 1_000, always)) == 11, "something came: back to the first limit"


def test_opening_the_session_is_a_step_but_proves_nothing() -> None:
    lookout = started()
    always = set(range(100))
    assert len(looks(lookout, 1, 100, always)) == 10
    lookout.start(0)
    assert len(looks(lookout, 1, 16, always)) == 15
    lookout.opened()
    assert len(looks(lookout, 16, 100, always)) == 20, "from the 15th on, and twice as long as the first time"


def test_time_in_which_the_client_itself_stood_still_does_not_count() -> None:
    lookout = started()
    assert lookout.look(50) == Verdict()
    lookout.next_look(50)
    assert lookout.look(60) == Verdict(probe=True), "60 s of silence, and it was awake for 2 of them"
    lookout.next_look(60)
    assert not lookout.look(62).loss
    lookout.next_look(62)
    assert not lookout.look(63).loss
    lookout.next_look(63)
    assert lookout.look(64).loss == "it has been silent for 5.0 s"


def test_what_was_heard_just_now_is_not_in_the_future() -> None:
    lookout = started()
    lookout.heard(50)
    lookout.look(50)
    lookout.next_look(50)
    verdicts = looks(lookout, 51, 100, set())
    assert len(verdicts) == 5
