"""Hand-made messages: ``Accepted ballot=1.1 slots=2,3``. A field that is not given is empty."""

from dataclasses import fields
from typing import Any

from paxos_rsm.paxos import messages as m
from paxos_rsm.paxos.types import Batch, Entry, Noop, join_frames
from tests.scripts.patterns import KINDS, parse_ballot
from tests.scripts.script import ScriptError

EMPTY: dict[str, Any] = {
    "last": None,
    "accepted": (),
    "decided": (),
    "entries": (),
    "frames": (),
    "reach": frozenset(),
    "leading": False,
    "leader_alive": False,
    "decided_through": 0,
    "round": 0,
}


def parse_entry(text: str) -> Entry:
    """``no-op``, or frames joined by ``+``."""
    return Noop() if text == "no-op" else Batch(join_frames(f.encode() for f in text.split("+")))


def _decided(text: str) -> tuple[int, Entry]:
    slot, _, entry = text.partition(":")
    return int(slot), parse_entry(entry)


def _voted(text: str) -> tuple[int, Any, Entry]:
    where, _, entry = text.partition(":")
    slot, _, ballot = where.partition("@")
    return int(slot), parse_ballot(ballot), parse_entry(entry)


def _value(name: str, text: str) -> Any:
    items = text.split(",")
    if name in ("ballot", "promised", "refused"):
        return parse_ballot(text)
    if name in ("slots", "unreadable"):
        return tuple(map(int, items))
    if name == "reach":
        return frozenset(map(int, items))
    if name in ("leading", "leader_alive"):
        return text == "yes"
    if name == "frames":
        return tuple(item.encode() for item in items)
    if name == "entry":
        return parse_entry(text)
    if name in ("decided", "entries"):
        return tuple(map(_decided, items))
    if name == "accepted":
        return tuple(map(_voted, items))
    return int(text)


def parse_message(words: list[str]) -> m.Message:
    """A message from its kind and fields. Raises ScriptError."""
    kind = KINDS.get(words[0])
    if kind is None:
        raise ScriptError(f"{words[0]!r} is no kind of message")
    names = {field.name for field in fields(kind)}
    given = {name: EMPTY[name] for name in names if name in EMPTY}
    for word in words[1:]:
        name, _, text = word.partition("=")
        if name not in names:
            raise ScriptError(f"{words[0]} has no field {name!r}, but {sorted(names)}")
        given[name] = _value(name, text)
    return kind(**given)
