"""The slice of the fuzzing that every `make test` runs, and proof that the fuzzing finds what it is for."""

import re
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos_rsm._proto import paxos_pb2 as pb
from paxos_rsm.codec.messages import MalformedMessage
from paxos_rsm.machines.kv.types import Put
from tests.fuzz import mutate
from tests.fuzz.runner import Failure, check, run_chunk, shrunk
from tests.fuzz.target import Answered, Target, require
from tests.fuzz.targets import TARGETS

INPUTS = 250
SLOW = dict.fromkeys(
    ("recovery", "applied-slot", "server-stream", "server-call", "server-watch", "server-keep-alive"), 100
)

by_name = pytest.mark.parametrize("name", TARGETS)


@by_name
def test_mutated_inputs(name: str) -> None:
    """The same inputs in every run; ``python -m tests.fuzz`` tries others."""
    report = run_chunk(TARGETS[name], 0, 0, SLOW.get(name, INPUTS))
    assert report.failure is None, f"{report.failure}"
    assert report.outcomes["accepted"] > 10, f"the inputs do not get past the door: {report.outcomes}"
    assert sum(report.outcomes.values()) - report.outcomes["accepted"] > 10, (
        f"nothing is wrong: {report.outcomes}"
    )


@by_name
@settings(max_examples=25)
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    check(TARGETS[name], data)


@by_name
@settings(max_examples=25)
@given(
    seed=st.integers(0, 1_000),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=9)), max_size=4),
)
def test_pieces_of_real_inputs_replaced(name: str, seed: int, edits: list[tuple[int, bytes]]) -> None:
    """Hypothesis chooses where, and makes what fails short."""
    target = TARGETS[name]
    data = target.make(Random(seed))[1]
    for where, new in edits:
        at = where % (len(data) + 1)
        data = data[:at] + new + data[at + len(new) :]
    check(target, data if target.mend is None else target.mend(data))


@by_name
def test_lists_without_an_end(name: str) -> None:
    """Thirty thousand of what should be a few: refused or read, in memory proportional to the input."""
    target = TARGETS[name]
    if not target.blows_up:
        pytest.skip("its input has no lists")
    rng = Random(5)
    for _ in range(2):
        data = mutate.blown(rng, target.make(rng)[1])
        check(target, data if target.mend is None else target.mend(data), weigh=True)


# ---- the fuzzing itself --------------------------------------------------------------------------------------


def planted(bug: Any, errors: tuple[type[Exception], ...] = ()) -> Target:
    return Target("planted", (), lambda rng: (None, rng.randbytes(20)), bug, errors, is_proto=False)


def raises_key_error(data: bytes) -> None:
    if b"\xff" in data:
        raise KeyError("escaped")


def takes_memory(data: bytes) -> int:
    return len(bytes(len(data) << 18))  # which is counted, and never touched


def says_too_much(data: bytes) -> None:
    raise MalformedMessage(f"{data!r}" * 2_000)


def loses_the_end(data: bytes) -> bytes:
    require(not data.endswith(b"\1"), "an accepted input breaks a promise")
    return data


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        (raises_key_error, "KeyError: 'escaped'"),
        (takes_memory, "bytes of memory"),
        (says_too_much, "characters"),
        (loses_the_end, "breaks a promise"),
    ],
)
def test_a_planted_bug_is_found(bug: Any, said: str) -> None:
    failure = run_chunk(
        planted(bug, (MalformedMessage,)), 1, 0, 300 if bug is takes_memory else 2_000
    ).failure
    assert failure is not None
    assert said in failure.error


def careless_put(data: bytes, _size: int) -> Put:
    """The hot path without its checks."""
    value_at = 6 + data[3]
    return Put(data[4 : value_at - 2], data[value_at:])


@pytest.mark.parametrize(
    ("name", "where", "instead", "said"),
    [
        ("recovery", "storage.records.RecordFormat.damage", lambda *_: None, "are gone without a word"),
        ("recovery", "storage.recovery._Reader._check_end", lambda *_: None, "are gone without a word"),
        ("recovery", "storage.recovery.SEAL_BYTES", 0, "nobody has noticed"),
        ("entry", "codec.entries._configuration", pb.Configuration.FromString, "DecodeError"),
        ("kv-command", "codec.kv._plain_put", careless_put, "the two ways of decoding differ"),
        (
            "peer-pieces",
            "transport.frames.Assembler.add",
            lambda self, piece: self._parts.append(piece.data),
            "came back",
        ),
        ("session-frame", "codec.frames.DecodeError", KeyError, "DecodeError"),
        ("server-watch", "server.watch_service.parse", lambda kind, data: kind.FromString(data), "met a bug"),
        ("server-watch", "server.watch_service._Stream._forget", lambda *_: None, "not forgotten"),
        ("server-call", "server.lease_service.parse", lambda kind, data: kind.FromString(data), "met a bug"),
    ],
)
def test_a_bug_planted_in_a_decoder_is_found(
    name: str, where: str, instead: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"paxos_rsm.{where}", instead)
    failure = next(
        (found for chunk in range(8) if (found := run_chunk(TARGETS[name], 1, chunk, 500).failure)), None
    )
    assert failure is not None
    assert re.search(said, failure.error)


def test_a_failing_input_is_made_short() -> None:
    data = bytes(50) + b"\xff" + bytes(50)
    failure = run_chunk(planted(raises_key_error), 1, 0, 2_000).failure
    assert failure is not None
    short = shrunk(planted(raises_key_error), Failure("planted", data, failure.error, failure.where))
    assert short.data == b"\xff"


def test_a_value_that_does_not_come_back_is_found() -> None:
    target = Target("planted", (), lambda rng: (b"as it was", b"as it was"), bytes.upper)
    failure = run_chunk(target, 1, 0, 10).failure
    assert failure is not None
    assert "came back as another" in failure.error


def test_a_seed_gives_the_same_inputs() -> None:
    seen: list[list[bytes]] = [[], []]
    for tried in seen:
        run_chunk(planted(tried.append), 7, 3, 100)
    assert seen[0] == seen[1]
    run_chunk(planted(seen[1].append), 8, 3, 100)
    assert seen[1][100:] != seen[0]


def test_a_refusal_by_value_is_counted_by_its_name() -> None:
    def refuse(_data: bytes) -> None:
        raise Answered("None")

    assert run_chunk(planted(refuse), 1, 0, 100).outcomes == {"None": 100}


# ---- edits of fields -----------------------------------------------------------------------------------------


def test_fields_are_read_and_written_back() -> None:
    data = TARGETS["peer-message"].make(Random(3))[1]
    fields = mutate.fields_of(data)
    assert fields is not None
    assert mutate.join_fields(fields) == data


def test_bytes_that_are_no_message_have_no_fields() -> None:
    for data in (b"\x0a\x05abc", b"\x00\x01", b"\x0b", b"\x80" * 11, b"\x09\1\2"):
        assert mutate.fields_of(data) is None


def test_edited_fields_keep_the_lengths_around_them_right() -> None:
    rng = Random(1)
    target = TARGETS["peer-message"]
    edited = [mutate.edit_fields(rng, target.make(rng)[1], target.make(rng)[1]) for _ in range(200)]
    readable = [data for data in edited if mutate.fields_of(data) is not None]
    assert len(readable) > 190
