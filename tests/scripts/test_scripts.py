"""The protocol as stories: every ``*.txt`` here is run, and must happen as it is written. README.md tells the format.

``PAXOS_RSM_REWRITE_SCRIPTS=1`` writes down what happened instead.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts import script
from tests.scripts.node_world import NodeWorld
from tests.scripts.server_world import ServerWorld

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
REWRITE = bool(os.environ.get("PAXOS_RSM_REWRITE_SCRIPTS"))

WORLDS: dict[str, Callable[[str], script.World]] = {"nodes": NodeWorld, "servers": ServerWorld}


class Stage:
    """The world that a script's first command makes, and every later one acts on."""

    def __init__(self) -> None:
        self._world: script.World | None = None

    def do(self, line: str) -> list[str]:
        """One command."""
        name, _, rest = line.partition(" ")
        if self._world is not None:
            return self._world.do(line)
        if name not in WORLDS:
            raise script.ScriptError(f"a script opens with one of {sorted(WORLDS)}, not with {line!r}")
        self._world = WORLDS[name](rest)
        return []

    def left(self) -> list[str]:
        """What a block has left behind."""
        return self._world.left() if self._world is not None else []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    difference = script.run(path, Stage(), rewrite=REWRITE)
    if difference:
        pytest.fail(f"{path.name} tells another story than what happened:\n\n{difference}", pytrace=False)
