"""What machines of one process share is found where people put it."""

from paxos_rsm.machines.base import Position
from paxos_rsm.testing.shared_state import changed_values, shared_values
from tests.unit.testing import broken_machines as broken

AT = Position(1, 0)


class HasKeywordDefault(broken.Right):
    def add(self, name: str, *, seen: set[str] = set()) -> None:  # noqa: B006 - what is to be found
        seen.add(name)


class Unreadable(dict[str, str]):
    def __repr__(self) -> str:
        raise RuntimeError("not now")


class HoldsUnreadable(broken.Right):
    held = Unreadable()


def test_a_class_attribute() -> None:
    machine = broken.SharesClassAttribute()
    before = shared_values(machine)
    machine.apply(b"add x anna", AT)
    assert changed_values(before, shared_values(machine)) == []
    machine.apply(b"take x", AT)
    assert changed_values(before, shared_values(machine)) == [
        "the class attribute SharesClassAttribute.taken"
    ]


def test_a_default_argument() -> None:
    machine = HasKeywordDefault()
    before = shared_values(machine)
    machine.add("anna")
    assert changed_values(before, shared_values(machine)) == ["a default argument of HasKeywordDefault.add"]


def test_a_global() -> None:
    machine = broken.SharesGlobal()
    before = shared_values(machine)
    machine.apply(b"add x anna", AT)
    assert changed_values(before, shared_values(machine)) == [f"the global TICKETS of {broken.__name__}"]


def test_what_cannot_be_read_is_left_out() -> None:
    assert not any("held" in name for name in shared_values(HoldsUnreadable()))


def test_the_bases_of_the_package_are_left_out() -> None:
    assert not any("SimpleMachine" in name for name in shared_values(broken.Right()))
