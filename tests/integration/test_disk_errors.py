"""A sync fails once, on a real server: that server stops, with a sentence, at the first error, and never tries again.

The system reports a lost write only once, so a server that tried again would take for durable what is gone. The
servers run under tracing_server.py, which makes one sync fail and notes what was said before and after.
"""

import asyncio
import errno

import pytest

from paxos_rsm.testing.cluster import LocalCluster, LocalServer
from tests.integration.clients import at_each_server, check_written, writer
from tests.integration.conftest import NewCluster
from tests.integration.load import Load
from tests.integration.processes import check_one_sentence, ended_server
from tests.integration.test_sync_before_say import checked_traces, traced
from tests.integration.traces import read_trace
from tests.integration.tracing_server import START, SYNC_BEGIN, SYNC_END, fail_path, trace_path
from tests.integration.waiting import eventually, leader_among, same_state

ERRORS = {
    errno.EIO: "an I/O error while syncing the log",
    errno.ENOSPC: "no space left while syncing the log",
}


@pytest.fixture(scope="module")
def _traced(new_shared_cluster: NewCluster) -> LocalCluster:
    return traced(new_shared_cluster)


@pytest.fixture
def traced_cluster(_traced: LocalCluster) -> LocalCluster:
    """Three servers, one of whose syncs can be made to fail."""
    _traced.start()
    return _traced


@pytest.mark.parametrize("number", ERRORS, ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_sync_that_fails_once_stops_the_server(
    traced_cluster: LocalCluster, role: str, number: int
) -> None:
    cluster = traced_cluster
    leader = cluster.wait_for_leader(everyone=True)
    failing = cluster[leader if role == "leader" else next(name for name in cluster.names if name != leader)]
    others = [server for server in cluster if server is not failing]
    before = failing.log()
    writers = {
        name: writer(f"{role}-{number}-{name}", endpoints, in_flight=2)
        for name, endpoints in at_each_server(cluster).items()
    }
    with Load(*writers.values()) as load:
        load.wait_for(20)
        # Made elsewhere and moved there: the server looks before each sync, and must not find half of it.
        made = fail_path(failing.data_dir).with_suffix(".made")
        made.write_text(str(number))
        made.rename(fail_path(failing.data_dir))
        ended = ended_server(failing, before)
        sentence = check_one_sentence(ended)
        assert ERRORS[number] in sentence
        assert str(failing.data_dir) in sentence
        check_never_tried_again(failing)
        eventually(lambda: leader_among(others), "leader of the other two")
        load.wait_for(20)
        failing.start()
        load.wait_for(20)
    eventually(lambda: same_state(cluster), "equal states")
    for server in cluster:
        acknowledged = {f"{role}-{number}-{name}": load.of(f"{role}-{number}-{name}") for name in writers}
        asyncio.run(check_written(server.endpoint, acknowledged))


def check_never_tried_again(failing: LocalServer) -> None:
    """The last process of this server has begun no sync after the one that failed."""
    events = read_trace(trace_path(failing.data_dir))
    started = max(index for index, event in enumerate(events) if event.kind == START)
    syncs = [event.kind for event in events[started:] if event.kind in (SYNC_BEGIN, SYNC_END)]
    assert syncs[-1] == SYNC_BEGIN, "a sync succeeded after one had failed"
    assert syncs.count(SYNC_BEGIN) == syncs.count(SYNC_END) + 1


def test_what_was_said_around_the_failures_was_durable(traced_cluster: LocalCluster) -> None:
    """Over everything that the tests above have made these servers say."""
    traced_cluster.terminate()
    checked = checked_traces(traced_cluster)
    assert checked.seen["Accepted"]
    assert not checked.violations, "\n".join(checked.violations[:20])
