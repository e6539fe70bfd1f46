"""The blocking twin: the same surface as AsyncClient, from any thread, and nothing left behind."""

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import threading
import typing
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace, UnionType
from typing import Any, Self, Union
from unittest.mock import Mock

import pytest

from paxos_rsm import (
    AsyncClient,
    AsyncElection,
    AsyncLease,
    AsyncLock,
    AsyncScan,
    AsyncWatch,
    Client,
    ClientError,
    Compare,
    Election,
    InvalidArgument,
    KeyValue,
    Lease,
    Lock,
    Op,
    Scan,
    TxnBuilder,
    Unavailable,
    UnknownOutcome,
    Watch,
)
from tests.unit.client.fake_server import FakeCluster, FakeServer

# ---- it cannot drift -------------------------------------------------------------------------------------


TWINS: dict[type, type] = {
    AsyncClient: Client,
    AsyncWatch: Watch,
    AsyncLease: Lease,
    AsyncLock: Lock,
    AsyncElection: Election,
    AsyncScan: Scan,
}
ASYNC_ONLY = {
    AsyncLock: {"guard"},
    AsyncElection: {"guard"},
    AsyncLease: {"guard", "forget", "abandon", "closed", "when_lost", "loss"},
}
"""Threads cannot be cancelled; and what is for the client's own use."""
BLOCKING_ONLY = {Lock: {"check"}, Election: {"check"}}
"""In place of ``guard``."""


def public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers_static(kind) if not name.startswith("_")}


def methods(kind: type) -> dict[str, Any]:
    return {name: member for name, member in public(kind).items() if callable(member)}


def as_blocking(annotation: Any) -> Any:
    """The type that a blocking twin has in the place of one that is awaited or asynchronous."""
    if annotation in TWINS:
        return TWINS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Coroutine:
        return as_blocking(arguments[2])
    if origin is AsyncGenerator:
        return Iterator[arguments[0]]  # type: ignore[valid-type]
    if origin in (Union, UnionType):
        return Union[tuple(map(as_blocking, arguments))]  # noqa: UP007
    if origin is TxnBuilder:
        return TxnBuilder[as_blocking(arguments[0])]  # type: ignore[misc]
    return {asyncio.Event: threading.Event, AsyncIterator[KeyValue]: Iterator[KeyValue]}.get(
        annotation, annotation
    )


def hints(function: Any) -> dict[str, Any]:
    return {name: as_blocking(hint) for name, hint in typing.get_type_hints(function).items()}


@pytest.mark.parametrize("kind", TWINS)
def test_both_have_the_same_methods(kind: type) -> None:
    there = set(methods(kind)) - ASYNC_ONLY.get(kind, set())
    assert there == set(methods(TWINS[kind])) - BLOCKING_ONLY.get(TWINS[kind], set())


def test_the_methods_are_those_that_were_promised() -> None:
    assert {"put", "get", "range", "scan", "delete", "compare_and_swap", "txn", "compact"} <= set(
        methods(Client)
    )
    assert {"watch", "lease", "grant", "revoke", "keep_alive_once", "time_to_live", "leases"} <= set(
        methods(Client)
    )
    assert {"lock", "election", "namespace", "members", "refresh_endpoints"} <= set(methods(Client))
    assert {"submit", "query", "status", "close"} <= set(methods(Client))


PAIRS = [
    (kind, name)
    for kind, twin in TWINS.items()
    for name in ([*methods(kind), "__init__"] if kind is AsyncClient else methods(kind))
    if name not in ASYNC_ONLY.get(kind, set())
]


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_both_have_the_same_parameters_defaults_and_types(kind: type, name: str) -> None:
    ours, theirs = getattr(TWINS[kind], name), getattr(kind, name)
    for mine, other in zip(
        inspect.signature(ours).parameters.values(),
        inspect.signature(theirs).parameters.values(),
        strict=True,
    ):
        assert (mine.name, mine.kind, mine.default) == (other.name, other.kind, other.default)
    blocking = typing.get_type_hints(ours)
    assert {n: h for n, h in blocking.items() if h is not Self} == {
        n: h for n, h in hints(theirs).items() if h is not Self
    }
    assert not inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("kind", TWINS)
def test_both_have_the_same_properties(kind: type) -> None:
    instance = {AsyncLease: {"id", "ttl_s"}, AsyncClient: {"timeout_s"}}  # attributes there, properties here

    def properties(of: type) -> set[str]:
        return {name for name, member in public(of).items() if isinstance(member, property)}

    assert properties(kind) | instance.get(kind, set()) == properties(TWINS[kind])


def test_both_clients_have_the_same_attributes() -> None:
    made = AsyncClient("a:1,b:2", timeout_s=3)
    twin = Client("a:1,b:2", timeout_s=3)
    assert {name for name in vars(made) if not name.startswith("_")} == {"timeout_s"}
    assert (made.endpoints, made.timeout_s) == (twin.endpoints, twin.timeout_s)


def test_every_method_hands_on_what_it_is_given() -> None:
    """Each parameter, under its own name: a forgotten one would be the default."""
    wrapped = {"watch", "lease", "lock", "election", "scan"}
    for name, method in methods(Client).items():
        if name in ("close", "namespace"):
            continue
        given = {
            parameter: object() for parameter in inspect.signature(method).parameters if parameter != "self"
        }
        if name in ("lock", "election"):
            given["lease"] = SimpleNamespace(_lease=given["lease"])
        expected = {k: getattr(v, "_lease", v) for k, v in given.items()}
        seen: list[dict[str, Any]] = []

        class Spy:
            def __getattr__(self, called: str, name: str = name, seen: Any = seen) -> Any:
                def call(*args: Any, **kwargs: Any) -> Any:
                    assert called == name
                    bound = inspect.signature(getattr(AsyncClient, name)).bind(self, *args, **kwargs)
                    seen.append({k: v for k, v in bound.arguments.items() if k != "self"})
                    return Mock() if name in wrapped else "coroutine"

                return call

        twin = Client("a:1")
        twin._async = Spy()  # type: ignore[assignment]
        twin._run = lambda call: f"ran {call}"  # type: ignore[method-assign,assignment,return-value]
        answer = getattr(twin, name)(**given)
        assert isinstance(answer, tuple(TWINS.values())) if name in wrapped else answer == "ran coroutine"
        assert seen == [expected]


# ---- it works --------------------------------------------------------------------------------------------


async def in_thread(work: Any, *args: Any) -> Any:
    """A blocking call while this loop goes on serving."""
    return await asyncio.wait_for(asyncio.to_thread(work, *args), 60)


async def test_every_method(server: FakeServer) -> None:
    def work() -> None:
        with Client(server.endpoint, timeout_s=30) as kv:
            assert kv.put("k", "v").revision == 2
            assert kv.get("k").value == b"v"
            assert [each.key for each in kv.range(prefix="k")] == [b"k"]
            assert kv.compare_and_swap("k", "v", "w")
            assert kv.txn([Compare.exists("k")], [Op.get("k")]).succeeded
            assert kv.delete("k") == 1
            assert kv.compact(3) is None  # type: ignore[func-returns-value]
            assert kv.submit(b"raw:x") == b"1 raw:x"
            assert kv.query(b"raw:") == b"1"
            assert [row.name for row in kv.status()] == ["n1"]
            with pytest.raises(InvalidArgument, match="key is not provided"):
                kv.put("", "v")

    await in_thread(work)
    assert server.closes == 1


async def test_many_threads_share_one_client(server: FakeServer, cluster: FakeCluster) -> None:
    def work() -> None:
        with Client(server.endpoint, timeout_s=30) as kv, ThreadPoolExecutor(16) as pool:
            revisions = list(pool.map(lambda n: kv.put("k", str(n)).revision, range(400)))
            assert sorted(revisions) == list(range(2, 402))
            assert kv.get("k").version == 400

    await in_thread(work)
    assert server.streams == 1
    assert len(cluster.sessions) == 1


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "paxos_rsm client"]


async def test_close_ends_the_thread_and_may_come_twice(server: FakeServer) -> None:
    def work() -> None:
        kv = Client(server.endpoint, timeout_s=30)
        assert background_threads() == [], "it starts with the first call"
        kv.put("k", "v")
        assert len(background_threads()) == 1
        kv.close()
        kv.close()
        assert background_threads() == []
        with pytest.raises(Unavailable, match="closed"):
            kv.get("k")

    await in_thread(work)


async def test_close_fails_the_calls_of_other_threads(server: FakeServer) -> None:
    kv = Client(server.endpoint, timeout_s=30)
    await in_thread(kv.put, "k", "v")
    server.working.clear()
    call = asyncio.create_task(in_thread(kv.put, "k", "w"))
    await server.until(lambda: len(server.frames) == 2)
    await in_thread(kv.close)
    with pytest.raises(UnknownOutcome):
        await call


async def test_a_client_that_is_forgotten_is_closed(server: FakeServer) -> None:
    def work() -> None:
        kv = Client(server.endpoint, timeout_s=30)
        kv.put("k", "v")
        gone = weakref.ref(kv)
        del kv
        gc.collect()
        assert gone() is None
        assert background_threads() == []

    await in_thread(work)


async def test_its_own_loop_may_not_block_on_it(server: FakeServer) -> None:
    def work() -> None:
        with Client(server.endpoint, timeout_s=30) as kv:
            kv.put("k", "v")

            async def call() -> None:
                kv.get("k")

            loop = kv._background._loop
            assert loop is not None
            with pytest.raises(ClientError, match="its own event loop"):
                asyncio.run_coroutine_threadsafe(call(), loop).result(20)

    await in_thread(work)


PROGRAM = """
import os, sys
from paxos_rsm import Client, ClientError, Unavailable
kv = Client(sys.argv[1], timeout_s=30)
{}
"""


async def run(server: FakeServer, body: str, **environment: str) -> str:
    """What a program of its own prints, which must end by itself and without a word on stderr."""
    program = [sys.executable, "-W", "error", "-c", PROGRAM.format(body), server.endpoint]
    done = await in_thread(
        lambda: subprocess.run(
            program, capture_output=True, text=True, timeout=50, env=dict(os.environ) | environment
        )
    )
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


async def test_a_program_that_never_closes_it_ends_all_the_same(server: FakeServer) -> None:
    assert await run(server, "kv.put('k', 'v'); print(kv.get('k').value)") == "b'v'\n"
    assert server.closes == 1, "it took leave at the exit"


async def test_a_program_that_never_uses_it_starts_nothing(server: FakeServer) -> None:
    assert await run(server, "print('bye')") == "bye\n"
    assert server.streams == 0


INTERRUPT = """
import asyncio, signal, time
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    kv.put('k', 'v')
except KeyboardInterrupt:
    print('interrupted')
ends = time.monotonic() + 20
while any('AsyncClient.put' in repr(task) for task in asyncio.all_tasks(kv._background._loop)):
    if time.monotonic() > ends:
        raise SystemExit('the call goes on, and nobody waits for it')
    time.sleep(0.01)
"""


async def test_ctrl_c_ends_the_call(server: FakeServer, cluster: FakeCluster) -> None:
    server.working.clear()
    assert await run(server, INTERRUPT) == "interrupted\n"
    server.working.set()
    assert cluster.executed == []


FORK = """
kv.put('k', 'v')
child = os.fork()
if child == 0:
    for call in (kv.get, Client(sys.argv[1], timeout_s=30).get):
        try:
            call('k')
        except ClientError as error:
            print(str(error)[-54:], flush=True)
    kv.close()
    os._exit(0)
os.waitpid(child, 0)
print(kv.get('k').value)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_fork_says_that_the_client_did_not_come_along(server: FakeServer) -> None:
    # gRPC's own handlers of forks are off: they note that they ran, and crash the child now and then.
    told = await run(server, FORK, GRPC_ENABLE_FORK_SUPPORT="0")
    assert told.splitlines() == [
        "come along into this fork of it; make a Client after the fork"[-54:],
        "start processes by multiprocessing's 'spawn' or 'forkserver'"[-54:],
        "b'v'",
    ]
