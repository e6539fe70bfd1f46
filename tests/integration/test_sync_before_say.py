"""Nothing is said before it is durable (rule 4): every Promise and every Accepted of a real server follows a sync.

SIGKILL alone shows nothing of this, because the system keeps what a dead process had written. So the servers run with
their system calls and their frames noted (tracing_server.py), and the notes are checked (traces.py). That the check can
fail is shown thrice: by events made up, one violation of each kind; by the same servers with the sync taken out; and
it says how many messages of each kind it has seen.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.paxos.types import Ballot
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.conftest import NewCluster
from tests.integration.raw import RawKv
from tests.integration.traces import Checked, Event, Vote, check, read_trace
from tests.integration.tracing_server import SEND, START, SYNC_BEGIN, SYNC_END, WRITE, trace_path
from tests.integration.waiting import eventually, leader_among

WRITES = 40
"""Of each client, one at a time: as many slots, more or less."""


def traced(new_cluster: NewCluster, **environment: str) -> LocalCluster:
    """A cluster whose servers note what they do."""
    command = [sys.executable, "-m", "tests.integration.tracing_server"]
    return new_cluster(command=command, environment=environment)


def write_everywhere(cluster: LocalCluster, what: str) -> None:
    """Writes by way of every server that runs, at the same time."""

    def work(endpoint: str) -> None:
        with RawKv(endpoint) as kv:
            for number in range(WRITES):
                kv.put(b"%s/%s/%d" % (what.encode(), endpoint.encode(), number), b"v" * 100)

    threads = [threading.Thread(target=work, args=[server.endpoint]) for server in cluster.running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def checked_traces(cluster: LocalCluster) -> Checked:
    """The check of everything that the servers did."""
    traces = {server.name: read_trace(trace_path(server.data_dir)) for server in cluster}
    return check(traces, quorum=len(cluster) // 2 + 1)


def test_everything_said_was_durable(new_cluster: NewCluster, tell: Callable[[str], None]) -> None:
    # Syncs that take a random time apart tell a server that waits for its own from one that does not.
    cluster = traced(new_cluster, TRACE_SYNC_DELAY_MS="6")
    cluster.start()
    write_everywhere(cluster, "first")
    leader = cluster.wait_for_leader()
    cluster[leader].kill()
    others = [server for server in cluster if server.name != leader]
    eventually(lambda: leader_among(others), "leader after the first")
    write_everywhere(
        cluster, "without one"
    )  # with a quorum of two, each decision needs the leader's own vote
    cluster.start()
    cluster.kill()
    cluster.start()
    write_everywhere(cluster, "after a restart")
    cluster.terminate()

    checked = checked_traces(cluster)
    tell("followed a sync: " + ", ".join(f"{count} {kind}" for kind, count in sorted(checked.seen.items())))
    assert not checked.violations, "\n".join(checked.violations[:20])
    # It saw something: three elections at least, and every slot accepted by two followers or one.
    assert checked.seen["Prepare"] >= 3
    assert checked.seen["Promise"] >= 3
    assert checked.seen["Accepted"] >= WRITES
    assert checked.seen["watermark"] >= WRITES
    ballots = [ballot for each in checked.ballots.values() for ballot in each]
    assert len(set(ballots)) == len(ballots), "a ballot was used twice"


def test_without_the_sync_the_check_fails(new_cluster: NewCluster) -> None:
    cluster = traced(new_cluster, TRACE_WITHOUT_SYNC="1")
    cluster.start()
    write_everywhere(cluster, "unsynced")
    cluster.terminate()
    assert {"Prepare", "Promise", "Accepted"} <= checked_traces(cluster).kinds()


# ---- the check itself ------------------------------------------------------------------------------------

FIRST, SECOND = Ballot(1, 7), Ballot(2, 7)
LOG = "d/log/0000000000000001.log"


class Story:
    """The made-up events of one server. All servers of a test share a clock."""

    def __init__(self, clock: Iterator[int]) -> None:
        self._clock = clock
        self.events: list[Event] = []

    def write(self, *votes: Vote, decided: tuple[int, ...] = (), promise: Ballot = FIRST) -> None:
        self._add(Event(WRITE, next(self._clock), LOG, votes, decided, promise))

    @contextmanager
    def sync(self) -> Iterator[None]:
        self._add(Event(SYNC_BEGIN, next(self._clock), LOG))
        yield
        self._add(Event(SYNC_END, next(self._clock), LOG))

    def restart(self) -> None:
        self._add(Event(START, next(self._clock)))

    def say(self, *messages: pb.PeerMessage, hello: pb.Hello | None = None) -> None:
        self._add(Event(SEND, next(self._clock), frame=pb.PeerFrame(messages=messages, hello=hello)))

    def _add(self, event: Event) -> None:
        self.events.append(event)


def wire(ballot: Ballot) -> pb.Ballot:
    return pb.Ballot(round=ballot.round, node=ballot.node)


PREPARE = pb.PeerMessage(prepare=pb.Prepare(ballot=wire(FIRST), first=1))
PROMISE = pb.PeerMessage(promise=pb.Promise(ballot=wire(FIRST), first=1))
REPORT = pb.PeerMessage(
    promise=pb.Promise(ballot=wire(FIRST), first=1, accepted=[pb.SlotEntry(slot=2, ballot=wire(FIRST))])
)
ACCEPTED = pb.PeerMessage(accepted=pb.Accepted(ballot=wire(FIRST), slots=[1, 2]))
HELLO = pb.Hello(promised=wire(FIRST))
VOTES = Vote(1, FIRST), Vote(2, FIRST)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("Prepare", PREPARE), ("Promise", PROMISE), ("Promise", REPORT), ("Accepted", ACCEPTED)],
)
def test_the_check_knows_what_came_before_the_sync(kind: str, message: pb.PeerMessage) -> None:
    good = Story(iter(range(100)))
    good.write(*VOTES)
    with good.sync():
        pass
    good.say(message, hello=HELLO)
    assert check({"n1": good.events}, quorum=1).violations == []

    unsynced = Story(iter(range(100)))
    unsynced.write(*VOTES)
    unsynced.say(message)
    unfinished = Story(iter(range(100)))
    unfinished.write(*VOTES)
    with unfinished.sync():
        unfinished.say(message)
    too_late = Story(iter(range(100)))
    with too_late.sync():
        too_late.write(*VOTES)
    too_late.say(message)
    died = Story(iter(range(100)))
    died.write(*VOTES)
    died.restart()
    died.say(message)
    for bad in (unsynced, unfinished, too_late, died):
        assert check({"n1": bad.events}, quorum=1).kinds() == {kind}


def test_the_check_knows_a_promise_told_too_early() -> None:
    story = Story(iter(range(100)))
    story.write()
    story.say(hello=HELLO)
    assert check({"n1": story.events}, quorum=1).kinds() == {"Hello"}


def test_the_check_knows_a_vote_of_another_ballot_or_a_part_of_the_slots() -> None:
    for votes in (VOTES[:1], (VOTES[0], Vote(2, SECOND))):
        story = Story(iter(range(100)))
        story.write(*votes)
        with story.sync():
            pass
        story.say(ACCEPTED)
        assert check({"n1": story.events}, quorum=1).kinds() == {"Accepted"}


def test_the_check_takes_what_was_learned_as_decided_for_a_vote() -> None:
    def with_promise(promise: Ballot, *decided: int) -> set[str]:
        story = Story(iter(range(100)))
        story.write(decided=decided, promise=promise)
        with story.sync():
            pass
        story.say(ACCEPTED)
        return check({"n1": story.events}, quorum=1).kinds()

    assert with_promise(FIRST, 1, 2) == set()
    assert with_promise(FIRST, 1) == {"Accepted"}
    assert with_promise(Ballot(0, 7), 1, 2) == {"Accepted"}


@pytest.mark.parametrize(
    "claim",
    [
        pb.PeerMessage(accept=pb.Accept(ballot=wire(FIRST), slot=3, decided_through=2)),
        pb.PeerMessage(decide=pb.Decide(ballot=wire(FIRST), decided_through=2)),
        pb.PeerMessage(heartbeat=pb.Heartbeat(ballot=wire(FIRST), decided_through=2)),
    ],
    ids=["Accept", "Decide", "Heartbeat"],
)
def test_the_check_knows_a_vote_that_counted_too_early(claim: pb.PeerMessage) -> None:
    def of_two(leader_syncs_first: bool) -> Checked:
        """A leader and one follower, a quorum of two: it may say "decided" when its own vote is durable, too."""
        clock = iter(range(100))
        leader, follower = Story(clock), Story(clock)
        leader.write(*VOTES)
        follower.write(*VOTES)
        with follower.sync():
            pass
        follower.say(ACCEPTED)
        if leader_syncs_first:
            with leader.sync():
                pass
            leader.say(claim)
        else:
            with leader.sync():
                leader.say(claim)
        return check({"n1": leader.events, "n2": follower.events}, quorum=2)

    assert of_two(leader_syncs_first=True).violations == []
    assert len(of_two(leader_syncs_first=False).violations) == 1
    assert "no quorum has it durably" in of_two(leader_syncs_first=False).violations[0]


def test_the_check_knows_a_genesis_entry_that_not_all_have_voted_for() -> None:
    clock = iter(range(100))
    servers = [Story(clock) for _ in range(3)]
    for story in servers[:2]:
        story.write(VOTES[0])
        with story.sync():
            pass
    decided = pb.PeerMessage(decide=pb.Decide(ballot=wire(FIRST), decided_through=1))
    servers[0].say(decided)
    traces = {f"n{number}": story.events for number, story in enumerate(servers, 1)}
    assert len(check(traces, quorum=2).violations) == 1


def test_the_check_knows_a_ballot_that_is_used_again() -> None:
    story = Story(iter(range(100)))
    story.write(promise=SECOND)
    with story.sync():
        pass
    story.say(PREPARE, PREPARE)
    story.restart()
    story.say(PREPARE)
    assert [v.partition(":")[2] for v in check({"n1": story.events}, quorum=1).violations] == [
        f" Prepare of {FIRST} uses a ballot of an earlier process again (rule 2)"
    ]
