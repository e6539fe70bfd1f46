"""A planted bug, and how it gets into the product without touching a file.

A :class:`Mutant` replaces a few lines of the product's own source by others. :func:`plant` does so in this process, for
modules that have not been imported yet: a finder on ``sys.meta_path`` compiles the changed text instead of what stands
on disk. So a hunt runs the real code with one bug in it, in a process of its own, and nothing has to be put back.

The replaced text must occur exactly once: a mutant that no longer fits the code it was written for is an error, never
a bug that silently was not planted.
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

__all__ = ["DoesNotApply", "Edit", "Mutant", "mutated", "plant", "source_of"]


class DoesNotApply(Exception):
    """The text that a mutant replaces is not there, or not only once."""


@dataclass(frozen=True)
class Edit:
    """In ``module``, the text ``old``, which occurs exactly once, becomes ``new``. Newlines around both are dropped."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One planted bug. ``rule`` is what it breaks: a rule of section 4 of the design, or what else was promised.

    ``why`` tells the bug in a sentence. ``also`` are further edits that belong to the same bug. ``hash_seeds`` says
    that it only shows between two processes whose hashes differ (PYTHONHASHSEED). ``core`` says that the fuzz of the
    protocol's core (tests/unit/paxos/fuzz.py) hunts it, and not the simulator, which does not play what it is about.
    ``world`` is what all worlds of its hunt have alike (fields of sim/world.py, rates of faults), where those that are
    drawn for any bug give it room too seldom.
    """

    name: str
    module: str
    old: str
    new: str
    rule: str
    why: str
    also: tuple[Edit, ...] = ()
    hash_seeds: bool = False
    core: bool = False
    world: tuple[tuple[str, float], ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that it changes."""
        return (Edit(self.module, self.old, self.new), *self.also)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that it changes, each once."""
        return tuple(dict.fromkeys(edit.module for edit in self.edits))


def source_of(module: str) -> str:
    """The source of a module as it stands on disk. Does not import it, but the packages that it is in."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise DoesNotApply(f"there is no module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")


def mutated(mutant: Mutant, module: str, source: str) -> str:
    """The source of ``module`` with the bug in it. Raises DoesNotApply."""
    for edit in mutant.edits:
        if edit.module != module:
            continue
        old, new = edit.old.strip("\n"), edit.new.strip("\n")
        found = source.count(old)
        if found != 1:
            raise DoesNotApply(
                f"{mutant.name}: what it replaces occurs {found} times in {module}, and must once:\n{old}"
            )
        source = source.replace(old, new)
    return source


class _Loader(SourceFileLoader):
    """Loads a module with the bug in it; never from a cache, nor into one."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_source(self, fullname: str) -> str:
        return mutated(self._mutant, fullname, super().get_source(fullname) or "")

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_source(fullname), self.get_filename(fullname), "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._mutant.modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, spec.origin, self._mutant)
        )


def plant(mutant: Mutant) -> None:
    """From now on this process imports the product with the bug in it. Raises DoesNotApply where it is too late."""
    late = [module for module in mutant.modules if module in sys.modules]
    if late:
        raise DoesNotApply(f"{mutant.name}: imported already, without the bug: {', '.join(late)}")
    sys.meta_path.insert(0, _Finder(mutant))
