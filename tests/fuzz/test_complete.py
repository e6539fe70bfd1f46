"""No decoder without a target: whatever takes bytes from outside is found in the source, and looked for in the lists.

What is found are functions that call what opens bytes (protobuf's FromString, struct's unpack, json's loads...), and
functions named as decoders are. A folder that reads nothing but what the same run wrote is left out whole.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from paxos_rsm._proto import session_pb2
from paxos_rsm.paxos.messages import Message
from tests.fuzz import values
from tests.fuzz.targets import TARGETS

PACKAGE = Path(__file__).resolve().parent.parent.parent / "paxos_rsm"

OPENS_BYTES = {
    "FromString",
    "ParseFromString",
    "MergeFromString",
    "ParseDict",
    "from_bytes",
    "iter_unpack",
    "loads",
    "raw_decode",
    "unpack",
    "unpack_from",
}
NAMED_SO = re.compile(r"_*(decode|parse|restore)(_\w+)?|\w+_from_(pb|bytes|kind|view)|segment_sequence")

LEFT_OUT = {
    "_proto": "generated",
    "checker": "reads the histories of tests",
    "cli": "reads what the same command wrote, or its own children; what a user types has targets of its own",
    "sim": "makes its own input",
    "testing": "reads its own children",
}

NOT_FROM_OUTSIDE = {
    "codec.frames:FrameCodec.decode": "hands on decode_frame",
    "client.membership:_ask_leader": "one message, of which nothing is used; what is none is told as an error",
    "config:_id_of": "bytes of a hash",
    "replica.snapshots:SnapshotKeeper.restore": "hands on SnapshotStore.read",
    "machines.base:SimpleMachine.restore": "joins slices for the user's own load",
    "machines.base:StateMachine.restore": "a Protocol",
    "machines.frames:FrameDecoder.decode": "a Protocol",
    "machines.kv.machine:CommandCodec.decode": "a Protocol",
    "machines.session_snapshots:machine_slices": "fed by restore",
    "machines.sessions:SessionMachine._restore_machine": "fed by restore",
    "replica.founding:restore_initial": "hands on read_slices",
    "storage.restore:restore_directory": "hands on check_backup, of what it has just written",
}
"""What the search finds and no target names; each with the reason."""


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module that is not within another, with the class it is in."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{child.name}", child


def is_decoder(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if NAMED_SO.fullmatch(function.name):
        return True
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Attribute) and called.attr in OPENS_BYTES for called in calls)


@cache
def decoders() -> frozenset[str]:
    """``module:function`` of everything in the package that looks like a decoder."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in LEFT_OUT:
            continue
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if is_decoder(function):
                found.add(f"{'.'.join(parts)}:{name}")
    return frozenset(found)


def fed() -> set[str]:
    return {decoder for target in TARGETS.values() for decoder in target.decoders}


def test_every_decoder_has_a_target() -> None:
    unfed = sorted(decoders() - fed() - NOT_FROM_OUTSIDE.keys())
    assert not unfed, f"decoders that tests/fuzz does not feed: {unfed}; write a target, or say why not"


def test_the_exemptions_are_needed() -> None:
    assert not NOT_FROM_OUTSIDE.keys() - decoders(), "what is exempt is not there any more"
    assert not NOT_FROM_OUTSIDE.keys() & fed(), "what is exempt has a target"


@pytest.mark.parametrize("decoder", sorted(fed()))
def test_what_a_target_says_it_feeds_is_there(decoder: str) -> None:
    module, _, name = decoder.partition(":")
    found: object = importlib.import_module(f"paxos_rsm.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


def test_the_search_finds_what_it_should() -> None:
    source = "def a(d): return pb.X.FromString(d)\nclass B:\n    def restore(self, c): ...\n"
    source += "def parse_x(t): ...\ndef c(): ...\n"
    found = [name for name, function in functions(ast.parse(source)) if is_decoder(function)]
    assert found == ["a", "B.restore", "parse_x"]
    assert "codec.messages:decode_message" in decoders()


def test_every_message_between_servers_is_made() -> None:
    assert set(values.MESSAGES) == set(get_args(Message))


def test_every_message_to_a_client_is_made() -> None:
    kinds = set(session_pb2.ServerMessage.DESCRIPTOR.fields_by_name)
    assert kinds == {"opened", "results", "read_results", "failure"}, (
        "teach _make_server_message the new kind"
    )
