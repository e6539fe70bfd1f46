"""What the model tests draw their commands from: few keys and small revisions, so that commands meet each other.

Commands are drawn from pools, each of some thousand commands made once by a generator with a fixed seed, the plainest
first: one choice of hypothesis for a command, and not one for each of its fields, so that an example can be long, and
still shrinks to plain commands. Transactions are put together out of such.

No pool knows the store's revision, so revisions are distances back from it: :func:`placed` makes them absolute.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from paxos_rsm.machines.kv.types import (
    ALL_FROM,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    SetQuota,
    Txn,
)

__all__ = [
    "COMPACTIONS",
    "DELETES",
    "DISTANCES",
    "GRANTS",
    "KEEP_ALIVES",
    "LEASE_IDS",
    "PLAIN_PUTS",
    "PUTS",
    "QUOTAS",
    "RANGES",
    "REVOKES",
    "TXNS",
    "placed",
    "weighted",
]

POOL_SIZE = 3_000

# Fewer than a dozen: up to there etcd's own sort is stable, and the order of equal keys is defined.
KEYS = [b"a", b"b", b"ba", b"b\0", b"c", b"d"]
ODD_KEYS = [b"", b"\0", b"\xff\xff"]
ENDS = [b"", b"", b"", b"", b"b", b"c", b"e", b"a\0", ALL_FROM, ALL_FROM]
VALUES = [b"", b"x", b"y", b"\xff\0"]
LEASES = [0] * 8 + [7, 7, 8, 8, 9, 9, -1]
TTLS_S = [60, 2, 3, 1, 0, -1, 9_000_000_000, 9_000_000_001]

# Distances back from the store's revision; 0 and less stand for themselves ("the newest"), but -9 is one ahead of it.
DISTANCE_CHOICES = [0, 0, 0, 0, 1, 1, 2, 3, 4, 6, 9, 14, 30, -1, -9]
FILTERS = [0, 0, 0, 1, 2, 4, 8, 16, -3]
AHEAD = -9


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of the strategies, each so often. (``st.one_of`` takes one that it is given twice for one.)"""
    strategies = [each for weight, each in choices for _ in range(weight)]

    @st.composite
    def one(draw: st.DrawFn) -> Any:
        return draw(strategies[draw(st.integers(0, len(strategies) - 1))])

    return one()


# ---- one command of each kind --------------------------------------------------------------------------------


def _key(random: Random) -> bytes:
    return random.choice(ODD_KEYS if random.random() < 0.06 else KEYS)


def _put(random: Random) -> Put:
    if random.random() < 0.4:
        return Put(random.choice(KEYS), random.choice(VALUES), random.choice(LEASES))
    ignore_value, ignore_lease = random.random() < 0.2, random.random() < 0.2
    # What is kept is not given as well, mostly.
    wrong = random.random() < 0.1
    value = b"" if ignore_value and not wrong else random.choice(VALUES)
    lease = 0 if ignore_lease and not wrong else random.choice(LEASES)
    return Put(_key(random), value, lease, random.random() < 0.7, ignore_value, ignore_lease)


def _delete(random: Random) -> DeleteRange:
    return DeleteRange(_key(random), random.choice(ENDS), random.random() < 0.5)


def _range(random: Random) -> Range:
    plain = Range(
        _key(random), random.choice(ENDS), random.choice([0, 0, 1, 2, 3, -1]), random.choice(DISTANCE_CHOICES)
    )
    if random.random() < 0.3:
        return plain
    filters = [random.choice(FILTERS) if random.random() < 0.3 else 0 for _ in range(4)]
    return Range(
        *plain[:4],
        random.randrange(3),
        random.randrange(5),
        random.random() < 0.5,
        random.random() < 0.2,
        random.random() < 0.1,
        *filters,
    )


def _compare(random: Random) -> Compare:
    target = random.choice(list(CompareTarget))
    operand: int | bytes = random.choice(VALUES) if target == CompareTarget.VALUE else random.randrange(9)
    return Compare(random.choice(KEYS), target, random.randrange(4), operand, random.choice(ENDS))


def _leaf(random: Random) -> Operation:
    """An operation of a transaction. One that is refused spoils all of it, so most are such as are not."""
    kind = random.random()
    if kind < 0.05:
        return random.choice([None, _put(random), _delete(random), _range(random)])
    if kind < 0.45:
        return Put(random.choice(KEYS), random.choice(VALUES), 0, random.random() < 0.5)
    if kind < 0.55:
        return Put(random.choice(KEYS), b"", random.choice(LEASES))
    if kind < 0.6:
        return Put(
            random.choice(KEYS), b"", 0, True, *random.choice([(True, False), (False, True), (True, True)])
        )
    if kind < 0.75:
        end = random.choice(ENDS) if random.random() < 0.3 else b""
        return DeleteRange(random.choice(KEYS), end, random.random() < 0.5)
    if kind < 0.95:
        return Range(random.choice(KEYS), random.choice(ENDS), random.choice([0, 1, 2]))
    return _range(random)._replace(key=random.choice(KEYS))


def _pool(make: Callable[[Random], Any], seed: int) -> st.SearchStrategy[Any]:
    random = Random(seed)
    # The shortest in words first: hypothesis shrinks towards the beginning.
    pool = sorted([make(random) for _ in range(POOL_SIZE)], key=lambda each: len(repr(each)))
    return st.integers(0, POOL_SIZE - 1).map(lambda number: pool[number])


def _plain_put(random: Random) -> Put:
    return Put(random.choice(KEYS), random.choice(VALUES), random.choice([0, 0, 0, 7]))


PLAIN_PUTS = _pool(_plain_put, 0)
PUTS = _pool(_put, 1)
DELETES = _pool(_delete, 2)
RANGES = _pool(_range, 3)
COMPARES = _pool(_compare, 4)
LEAVES = _pool(_leaf, 5)
DISTANCES = st.sampled_from(DISTANCE_CHOICES)
COMPACTIONS = st.tuples(DISTANCES, st.booleans()).map(lambda drawn: Compact(*drawn))
LEASE_IDS = st.sampled_from([7, 8, 9, -1])
GRANTS = st.tuples(st.sampled_from(TTLS_S), LEASE_IDS).map(lambda drawn: LeaseGrant(*drawn))
REVOKES = LEASE_IDS.map(LeaseRevoke)
KEEP_ALIVES = LEASE_IDS.map(LeaseKeepAlive)


# Some hundred bytes is what one version counts for.
QUOTAS = st.sampled_from([0, 0, 0, 1, 1500, 3000, 6000, 12_000]).map(SetQuota)


@st.composite
def _txns(draw: st.DrawFn, depth: int = 0) -> Txn:
    def branch(most: int) -> tuple[Operation, ...]:
        drawn: list[Operation] = []
        for _ in range(draw(st.integers(0, most))):
            nested = depth < 2 and draw(st.integers(0, 5)) == 5
            drawn.append(draw(_txns(depth + 1)) if nested else draw(LEAVES))
        return tuple(drawn)

    compare = tuple(draw(COMPARES) for _ in range(draw(st.integers(0, 2))))
    return Txn(compare, branch(3), branch(2))


TXNS = _txns()


# ---- where the store stands ----------------------------------------------------------------------------------


def placed(command: Any, revision: int) -> Any:
    """The command with its distances turned into revisions of a store that is at ``revision``."""
    if isinstance(command, Txn):
        success = tuple(placed(operation, revision) for operation in command.success)
        failure = tuple(placed(operation, revision) for operation in command.failure)
        compare = tuple(_placed_compare(each, revision) for each in command.compare)
        return Txn(compare, success, failure)
    if isinstance(command, Range):
        filters = [_back(each, revision) for each in command[9:]]
        at = command._replace(revision=_back(command.revision, revision))
        return Range(*at[:9], *filters)
    if isinstance(command, Compact):
        return command._replace(revision=_back(command.revision, revision))
    return command


def _placed_compare(compare: Compare, revision: int) -> Compare:
    if compare.target in (CompareTarget.CREATE, CompareTarget.MOD) and compare.operand:
        return compare._replace(operand=revision - int(compare.operand))
    return compare


def _back(distance: int, revision: int) -> int:
    if distance == AHEAD:
        return revision + 1
    return revision - distance if distance > 0 else distance
