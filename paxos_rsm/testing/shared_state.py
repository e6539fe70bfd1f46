"""What several machines of one process could share: the usual way in which one that looks right is none.

A mutable class attribute, a mutable default argument, a container in a module: the machines of three servers have
their own on three machines, and one and the same where a test runs them in one process, or a server makes a second one
to restore a snapshot into. :func:`shared_values` reads all of them as text; two readings tell which of them applying
commands has changed. That by itself is no fault (it may be a harmless cache): it is named where replicas differ.
"""

import inspect
import itertools
import sys
from collections import deque
from typing import Any

__all__ = ["changed_values", "shared_values"]

CONTAINERS = (dict, list, set, bytearray, deque)
CHANGEABLE = (*CONTAINERS, itertools.count, int, float, str, bytes, tuple, frozenset)
TEXT_MAX = 100_000


def shared_values(machine: object) -> dict[str, str]:
    """What the class of ``machine``, its bases and their modules hold, by a name that a reader finds."""
    found: dict[str, str] = {}
    for owner in type(machine).__mro__:
        if owner.__module__.partition(".")[0] in ("builtins", "abc", "typing", "paxos_rsm"):
            continue
        module = sys.modules.get(owner.__module__)
        for name, value in vars(owner).items():
            if name.startswith("__") and name != "__init__":
                continue
            if inspect.isfunction(value):
                _add(
                    found, f"a default argument of {owner.__qualname__}.{name}", _defaults(value), CONTAINERS
                )
            else:
                _add(found, f"the class attribute {owner.__qualname__}.{name}", value, CHANGEABLE)
        for name, value in vars(module).items() if module is not None else ():
            if not name.startswith("__"):
                _add(found, f"the global {name} of {owner.__module__}", value, CHANGEABLE)
    return found


def changed_values(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of what is not what it was."""
    return [name for name, text in after.items() if before.get(name) != text]


def _defaults(function: Any) -> list[Any]:
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [value for value in values if isinstance(value, CONTAINERS)]


def _add(found: dict[str, str], name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if isinstance(value, kinds) or (isinstance(value, list) and value):
        try:
            found[name] = repr(value)[:TEXT_MAX]
        except Exception:  # somebody's own __repr__: what cannot be read cannot be compared
            return
