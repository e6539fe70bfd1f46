import pytest

from examples.counter import Counter
from paxos_rsm.codec.kv import KvCodec
from paxos_rsm.machines.base import BatchStateMachine, Position, SimpleMachine, StateMachine
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.slices import SLICE_BYTES

AT = Position(1, 0)


class Text(SimpleMachine):
    """A state as large as one likes."""

    text = b""

    def apply(self, command: bytes, at: Position) -> bytes:
        self.text += command
        return b""

    def query(self, request: bytes) -> bytes:
        return self.text

    def dump(self) -> bytes:
        return self.text

    def load(self, state: bytes) -> None:
        self.text = state


def test_positions_are_ordered_by_slot_then_index() -> None:
    assert sorted([Position(2, 0), Position(1, 7), Position(1, 2)]) == [
        Position(1, 2),
        Position(1, 7),
        Position(2, 0),
    ]


def test_which_machines_take_a_frame_in_one_call() -> None:
    assert isinstance(Counter(), StateMachine)
    assert not isinstance(Counter(), BatchStateMachine)
    assert isinstance(KeyValueMachine(KvCodec()), BatchStateMachine)


def test_a_simple_machine_has_snapshots_and_a_digest_from_dump_and_load() -> None:
    machine = Text()
    machine.apply(bytes(SLICE_BYTES + 1), AT)
    view = machine.snapshot()
    before = machine.digest()
    machine.apply(b"later", AT)
    slices = list(view)
    assert [len(each) for each in slices] == [SLICE_BYTES, 1]  # of the moment of the call
    assert machine.digest() != before
    copy = Text()
    copy.restore(slices)
    assert copy.text == bytes(SLICE_BYTES + 1)
    assert copy.digest() == before


def test_a_simple_machine_with_an_empty_state() -> None:
    copy = Text()
    copy.restore(Text().snapshot())
    assert copy.digest() == Text().digest()


def test_the_counter_counts() -> None:
    counter = Counter()
    assert counter.apply(b"5", AT) == b"5"
    assert counter.apply(b"-7", AT) == b"-2"
    assert counter.query(b"anything") == b"-2"
    copy = Counter()
    copy.restore(counter.snapshot())
    assert copy.query(b"") == b"-2"


@pytest.mark.parametrize(
    "command", [b"", b"-", b"--1", b"five", b"1_0", b" 1", "٣".encode(), b"9" * 20, b"1\n", b"+1", b"\xff"]
)
def test_the_counter_answers_bad_input(command: bytes) -> None:
    counter = Counter()
    before = counter.digest()
    assert counter.apply(command, AT).startswith(b"error: ")
    assert counter.digest() == before
