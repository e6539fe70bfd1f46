"""The state machine that a server was told to serve, by name.

``package.module:Class`` is imported from where Python finds modules and from the working directory, as one who
writes a small machine expects; the class is made without arguments. Everything that can be wrong with that has a
sentence, because it is the first thing that a user's own code meets.
"""

import importlib
import inspect
import sys
from typing import Any

from paxos_rsm.errors import ConfigError
from paxos_rsm.machines.base import StateMachine

__all__ = ["check_machine", "load_machine"]

METHODS = ("apply", "query", "snapshot", "restore", "digest")


def load_machine(name: str) -> StateMachine:
    """A new machine of the class ``package.module:Class``. Raises ConfigError, which says what is wrong."""
    module_name, _, class_name = name.partition(":")
    module = _import(name, module_name)
    found = getattr(module, class_name, None)
    if found is None:
        classes = [
            each
            for each, what in vars(module).items()
            if inspect.isclass(what) and what.__module__ == module.__name__
        ]
        there = f"; there are {', '.join(sorted(classes))}" if classes else ""
        raise ConfigError(f"--machine {name}: the module {module_name} has no {class_name!r}{there}")
    if not inspect.isclass(found):
        raise ConfigError(f"--machine {name}: {class_name} is a {type(found).__name__}, not a class")
    try:
        machine = found()
    except Exception as error:
        raise ConfigError(
            f"--machine {name}: {class_name}() raised {type(error).__name__}: {error}; a machine is made without "
            "arguments"
        ) from error
    return check_machine(machine, f"--machine {name}")


def check_machine(machine: Any, name: str) -> StateMachine:
    """``machine``, if it has what a state machine needs. Raises ConfigError that names what is missing."""
    missing = [each for each in METHODS if not callable(getattr(machine, each, None))]
    if missing:
        raise ConfigError(
            f"{name} is no state machine: {type(machine).__name__} has no {', '.join(missing)}; "
            "paxos_rsm.machines.base.SimpleMachine gives what a small one lacks"
        )
    if any(inspect.iscoroutinefunction(getattr(machine, each)) for each in METHODS):
        raise ConfigError(f"{name} is no state machine: its methods must not be `async def`")
    assured: StateMachine = machine
    return assured


def _import(name: str, module_name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ConfigError(
                f"--machine {name}: there is no module {error.name!r} in the working directory or where Python looks "
                "(PYTHONPATH)"
            ) from None
        raise ConfigError(
            f"--machine {name}: the module {module_name} needs {error.name!r}, which is not there"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"--machine {name}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
