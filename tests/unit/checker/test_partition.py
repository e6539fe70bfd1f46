import random

from paxos_rsm.checker import Operation
from paxos_rsm.checker.models import CasRegister, Counter, Register
from paxos_rsm.checker.partition import STRIDE, Partition, sort_by_call


def op(name: str, given: object, call: float, return_: float | None, output: object = None) -> Operation:
    status = "unknown" if return_ is None else "ok"
    return Operation(1, name, "k", given, output, call, return_, status)  # type: ignore[arg-type]


def test_operations_that_do_not_overlap_have_one_order() -> None:
    first, second = op("write", 1, 0, 1), op("read", None, 2, 3)
    ops = [second, first]
    assert sort_by_call(ops)
    assert ops == [first, second]
    assert not sort_by_call([first, op("read", None, 1, 3)]), "equal times are concurrent"
    assert not sort_by_call([first, op("write", 1, 2, None)])


def test_pending_operations_and_their_places() -> None:
    """Against the definition, event by event, over several strides."""
    rng = random.Random(1)
    ops = []
    for number in range(5 * STRIDE):
        call = number + rng.random()
        ops.append(op(rng.choice(["read", "write"]), number, call, call + 4 * rng.random()))
    sort_by_call(ops)
    part = Partition(Register(), ops)
    for event, index in enumerate(part.order):
        now = ops[index].return_
        assert now is not None
        expected = [each for each in part.order[event:] if ops[each].call <= now]
        pending = part.pending(event)
        assert pending == expected
        assert pending[0] == index
        bits = [part.bit[each] for each in pending]
        assert len(set(bits)) == len(bits), "each has a place of its own"
        reads = sum(part.bit[each] for each in pending if part.is_read[each])
        assert part.reads_mask[event] == reads
        assert part.writes_mask[event] == sum(bits) - reads
    called = [each for new in part.new_reads for each in new]
    assert called == [each for each in range(len(ops)) if part.is_read[each]]
    assert max(part.bit) < 1 << 16, "masks are as wide as the history is concurrent"


def test_open_operations_that_are_of_use() -> None:
    ops = [
        op("write", "a", 0, None),
        op("write", "b", 0, None),
        op("cas", ("a", "c"), 0, None),
        op("write", "unseen", 0, None),
        op("read", None, 0, None),
        op("write", "x", 1, 2),
        op("read", None, 3, 4, "c"),
        op("write", "b", 5, None),
        op("cas", ("no", "matter"), 6, 7, False),
        op("read", None, 8, 9, "b"),
    ]
    part = Partition(CasRegister(), ops)
    names = [(each.op, each.input) for each in part.open]
    assert names[:3] == [("write", "a"), ("write", "b"), ("cas", ("a", "c"))]
    assert len(part.open) == 5, "the open read is of no use to anybody"
    assert part.open_called == [4, 4, 5, 5]
    assert part.open_candidates(0) == [], "a blind write needs nothing"
    assert part.open_candidates(1) == [0, 2], "c comes from a"
    assert list(part.open_candidates(2)) == [0, 1, 2, 3, 4], "a refused swap may owe its answer to any"
    assert part.open_candidates(3) == [1, 4]
    assert part.alike[1] == part.alike[4]


def test_without_tokens_all_that_were_called_may_be_of_use() -> None:
    ops = [op("add", 1, 0, None), op("add", 1, 0, 1), op("add", 2, 2, None), op("get", None, 3, 4, 1)]
    part = Partition(Counter(), ops)
    assert [list(part.open_candidates(event)) for event in range(2)] == [[0], [0, 1]]
