"""The rules of the house, as failing tests: size of rooms, docstrings, exported names, what is banned.

What ruff, mypy and import-linter can say is left to them. Each rule is a function from one Python file to its
offences, so that the test at the end can show, on a few lines, that the rule does fail where it should.
"""

import ast
import gc
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "paxos_rsm"
CODE_FOLDERS = (PACKAGE, "tools", "tests", "benchmarks", "examples")

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# Modules without a test file of their own, each with the reason. Short, and to stay so.
WITHOUT_MIRRORED_TEST = {
    "paxos_rsm/_version.py": "one constant",
    "paxos_rsm/paxos/messages.py": "dataclasses only; their codec has tests/unit/codec/test_messages.py",
    "paxos_rsm/paxos/ready.py": "dataclasses only",
    "paxos_rsm/replica/api.py": "Protocols only",
}


@dataclass(frozen=True)
class Room:
    """One Python file: its path from the root of the repository, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def parse(cls, path: str, text: str) -> "Room":
        return cls(path, text, ast.parse(text, path))


@cache
def rooms() -> tuple[Room, ...]:
    """Every hand-written Python file of the project. Generated ones are protoc's business."""
    found = []
    # The trees stay: to look through them for garbage again and again takes longer than to make them.
    gc.disable()
    try:
        for folder in CODE_FOLDERS:
            for path in sorted((ROOT / folder).rglob("*.py")):
                name = path.relative_to(ROOT).as_posix()
                if not re.fullmatch(rf"{PACKAGE}/_proto/\w+_pb2(_grpc)?\.py", name):
                    found.append(Room.parse(name, path.read_text(encoding="utf-8")))
    finally:
        gc.enable()
    return tuple(found)


def imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported below `node`, with its line."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module, child.lineno


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def files_are_rooms(room: Room) -> Iterator[str]:
    lines = len(room.text.splitlines())
    if lines > FILE_LINES_MAX:
        yield f"{room.path}: {lines} lines, the limit is {FILE_LINES_MAX}: it wants a wall"


def functions_are_short(room: Room) -> Iterator[str]:
    for node in ast.walk(room.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                limit = f"{lines} lines, the limit is {FUNCTION_LINES_MAX}"
                yield f"{room.path}:{node.lineno}: {node.name} has {limit}"


def modules_open_with_a_docstring(room: Room) -> Iterator[str]:
    if not room.path.startswith("tests/") and not ast.get_docstring(room.tree):
        yield f"{room.path}: a module opens with a docstring that is its theory of operation"


def no_assert(room: Room) -> Iterator[str]:
    if room.path.startswith(f"{PACKAGE}/"):
        for node in ast.walk(room.tree):
            if isinstance(node, ast.Assert):
                yield f"{room.path}:{node.lineno}: raise instead of assert, which python -O drops"


def no_print_outside_cli(room: Room) -> Iterator[str]:
    if room.path.startswith(f"{PACKAGE}/") and not room.path.startswith(f"{PACKAGE}/cli/"):
        for node in ast.walk(room.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"{room.path}:{node.lineno}: print belongs to paxos_rsm/cli; use logging"


def nothing_is_pickled(room: Room) -> Iterator[str]:
    for module, line in imports(room.tree):
        if module.split(".")[0] in {
            "pickle",
            "_pickle",
            "cPickle",
            "cloudpickle",
            "dill",
            "marshal",
            "shelve",
        }:
            yield f"{room.path}:{line}: imports {module}: nothing is pickled, neither on the wire nor on disk"


def pure_floors_are_pure(room: Room) -> Iterator[str]:
    """What .importlinter cannot say: third parties, and randomness as a type only.

    `random.Random` may be named as the type of an injected generator, under `if TYPE_CHECKING:`.
    """
    allowed = {PACKAGE}
    if room.path.startswith(f"{PACKAGE}/machines/"):
        allowed.add("sortedcontainers")
    elif not room.path.startswith(f"{PACKAGE}/paxos/"):
        return
    typing_only = {
        line for node in ast.walk(room.tree) if is_type_checking(node) for _, line in imports(node)
    }
    for module, line in imports(room.tree):
        top = module.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            yield f"{room.path}:{line}: imports {module}: the pure floors use the standard library"
        if top == "random" and line not in typing_only:
            yield f"{room.path}:{line}: imports random: randomness is injected (import it for typing only)"


def the_client_stands_beside(room: Room) -> Iterator[str]:
    """The list of what is allowed; .importlinter has the one of what is not, and sees indirect imports."""
    if not room.path.startswith(f"{PACKAGE}/client/"):
        return
    for node in ast.walk(room.tree):
        if isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        else:
            continue
        for name in named:
            top, _, rest = name.partition(".")
            if top == PACKAGE and rest.split(".")[0] not in {"errors", "_proto", "client", "_version"}:
                yield f"{room.path}:{node.lineno}: imports {name}: a client knows errors, _proto and itself"


RULES: tuple[Callable[[Room], Iterator[str]], ...] = (
    files_are_rooms,
    functions_are_short,
    modules_open_with_a_docstring,
    no_assert,
    no_print_outside_cli,
    nothing_is_pickled,
    pure_floors_are_pure,
    the_client_stands_beside,
)


def package_modules() -> list[str]:
    """Paths of the hand-written modules of the package, without those that only hand names on."""
    return [
        room.path
        for room in rooms()
        if room.path.startswith(f"{PACKAGE}/") and Path(room.path).name not in ("__init__.py", "__main__.py")
    ]


def mirrored_tests(module: str) -> list[str]:
    """Where the test of a module may stand: paxos_rsm/paxos/_log.py -> tests/unit/paxos/test_log.py."""
    path = Path(module).relative_to(PACKAGE)
    names = dict.fromkeys([path.stem.lstrip("_"), path.stem])
    return [(Path("tests/unit") / path.parent / f"test_{name}.py").as_posix() for name in names]


def has_mirrored_test(module: str) -> bool:
    return any((ROOT / test).is_file() for test in mirrored_tests(module))


def export_order(name: str) -> tuple[int, list[tuple[int, int, str]]]:
    """The order of `__all__` that ruff's RUF022 keeps: CONSTANTS, Classes, functions; numbers by value."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def export_offences(name: str, module: object) -> Iterator[str]:
    """What is wrong with the `__all__` of an imported module."""
    exported = getattr(module, "__all__", None)
    if exported is None:
        return
    missing = [each for each in exported if not hasattr(module, each)]
    if missing:
        yield f"{name}: __all__ names what is not there: {', '.join(missing)}"
    if len(set(exported)) != len(exported):
        yield f"{name}: __all__ names something twice"
    if list(exported) != sorted(exported, key=export_order):
        yield f"{name}: __all__ is not sorted (ruff's RUF022; `make fmt` mends it)"


def machine_paths(path: str, text: str) -> Iterator[str]:
    """Lines that name a directory of one machine. Split here, so that this file may name them."""
    pattern = re.compile(r"(?<![\w.$}~/-])/" + r"(?:work|root|home|farm)" + r"/")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.search(line):
            yield f"{path}:{number}: names a path of one machine: {line.strip()[:100]}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Callable[[Room], Iterator[str]]) -> None:
    offences = [offence for room in rooms() for offence in rule(room)]
    assert not offences, "\n" + "\n".join(offences)


def test_house_is_found() -> None:
    """The rules look at something: a moved folder must not make them pass on nothing."""
    paths = {room.path for room in rooms()}
    assert {"tests/test_house.py", "tools/gen_protos.py", "paxos_rsm/_version.py"} <= paths


def test_every_module_has_its_mirrored_test() -> None:
    offences = [
        f"{module}: no {mirrored_tests(module)[0]}"
        for module in package_modules()
        if module not in WITHOUT_MIRRORED_TEST and not has_mirrored_test(module)
    ]
    assert not offences, "\n" + "\n".join(offences)


def test_exemptions_are_needed() -> None:
    modules = package_modules()
    stale = [module for module in WITHOUT_MIRRORED_TEST if module not in modules or has_mirrored_test(module)]
    assert not stale, f"take these off WITHOUT_MIRRORED_TEST: {stale}"


def test_exported_names_exist_and_are_sorted() -> None:
    offences: list[str] = []
    for room in rooms():
        if room.path.startswith(f"{PACKAGE}/") and not room.path.endswith("/__main__.py"):
            name = room.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            try:
                module = importlib.import_module(name)
            except ImportError as error:
                offences.append(f"{name}: cannot be imported: {error}")
            else:
                offences.extend(export_offences(name, module))
    assert not offences, "\n" + "\n".join(offences)


def test_no_path_of_one_machine_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are tracked cannot be told")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    offences: list[str] = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue  # tracked, and deleted in the work tree
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text file
        offences.extend(machine_paths(name, text))
    assert not offences, "\n" + "\n".join(offences)


def offend(path: str, body: str) -> Room:
    """A file of a few lines, correct but for what a test adds to it."""
    return Room.parse(path, f'"""A module."""\n{body}\n')


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (
            files_are_rooms,
            offend("paxos_rsm/a.py", "x = 1\n" * FILE_LINES_MAX),
            offend("paxos_rsm/a.py", "x = 1\n" * (FILE_LINES_MAX - 2)),
        ),
        (
            functions_are_short,
            offend("tests/a.py", "async def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
            offend("tests/a.py", "async def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)),
        ),
        (modules_open_with_a_docstring, Room.parse("tools/a.py", "x = 1"), offend("tools/a.py", "x = 1")),
        (no_assert, offend("paxos_rsm/paxos/a.py", "assert True"), offend("tests/a.py", "assert True")),
        (
            no_print_outside_cli,
            offend("paxos_rsm/client/a.py", "print(1)"),
            offend("paxos_rsm/cli/a.py", "print(1)"),
        ),
        (
            nothing_is_pickled,
            offend("tests/a.py", "from pickle import loads"),
            offend("tests/a.py", "import json"),
        ),
        (
            pure_floors_are_pure,
            offend("paxos_rsm/paxos/a.py", "from random import Random"),
            offend("paxos_rsm/paxos/a.py", "if TYPE_CHECKING:\n    from random import Random"),
        ),
        (
            pure_floors_are_pure,
            offend("paxos_rsm/paxos/a.py", "import sortedcontainers"),
            offend("paxos_rsm/machines/a.py", "import sortedcontainers"),
        ),
        (
            the_client_stands_beside,
            offend("paxos_rsm/client/a.py", "from paxos_rsm import config"),
            offend("paxos_rsm/client/a.py", "from paxos_rsm._proto import kv_pb2\nimport paxos_rsm.errors"),
        ),
    ],
)
def test_each_rule_can_fail(rule: Callable[[Room], Iterator[str]], bad: Room, good: Room) -> None:
    assert len(list(rule(bad))) == 1
    assert not list(rule(good))


def test_the_other_rules_can_fail() -> None:
    class Module:
        __all__ = ("LIMIT", "gone", "Node", "Node")  # a tuple, so that the linter leaves it alone
        LIMIT = Node = 1

    told = list(export_offences("m", Module))
    assert [each.split(": ", 1)[1].split(" ")[1] for each in told] == ["names", "names", "is"]
    assert sorted(["b2", "b10", "A_B", "Cd", "a"], key=export_order) == ["A_B", "Cd", "a", "b2", "b10"]

    slash = "/"
    assert list(machine_paths("f", f"log in {slash}home{slash}me"))
    assert not list(machine_paths("f", "https://example.org/work/x and some/work/x"))
