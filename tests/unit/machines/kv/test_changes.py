"""The log of changes: positions, pages, and dropping from the front."""

import random

from paxos_rsm.machines.kv.changes import ChangeLog
from paxos_rsm.machines.kv.records import Record


def record(revision: int) -> Record:
    return (b"k%d" % revision, revision, revision, 1, b"", 0)


def log_of(*revisions: int) -> ChangeLog:
    log = ChangeLog()
    for revision in revisions:
        log.records.append(record(revision))
        log.freed.append(revision)
    return log


def test_a_page_has_whole_revisions_and_one_at_least() -> None:
    log = log_of(2, 3, 3, 3, 4)
    for first, records_max, expected in (
        (1, 1, [2]),
        (2, 2, [2]),
        (3, 1, [3, 3, 3]),
        (3, 9, [3, 3, 3, 4]),
        (5, 9, []),
    ):
        assert log.page(first, records_max) == [record(revision) for revision in expected]


def test_what_is_dropped_moves_no_position() -> None:
    """Against a list that never drops anything; long enough for its places to go, too."""
    rnd = random.Random(1)
    log, plain = log_of(), []
    revision = first = 0
    for _ in range(300):
        for _ in range(rnd.randrange(60)):
            revision += rnd.random() < 0.7
            plain.append(record(revision))
            log.records.append(record(revision))
            log.freed.append(revision)
        count = min(rnd.randrange(60), len(plain) - first)
        assert log.drop(count) == plain[first : first + count]
        first += count
        assert (log.first, log.end, len(log)) == (first, len(plain), len(plain) - first)
        start = rnd.randint(first, len(plain))
        assert log.between(start, log.end, 3) == plain[start::3]
        assert log.freed_between(first, start) == sum(each[2] for each in plain[first:start])
        at = rnd.randint(0, revision)
        assert log.after(at) == max(first, sum(each[2] <= at for each in plain))
    assert len(log.records) < len(plain), "no place was ever given back"


def test_more_than_there_is_cannot_be_dropped() -> None:
    log = log_of(2, 3)
    assert log.drop(9) == [record(2), record(3)]
    assert (log.first, log.end, len(log)) == (2, 2, 0)
