"""Unary calls through etcd's API, beside a real etcd on the same machine in the same run.

    python -m benchmarks.etcd_api                           # two minutes
    python -m benchmarks.etcd_api --rounds 9 --seconds 5 -w json

One client, ``grpc.aio`` with etcd's own messages (``etcdserverpb.KV``, Put and Range of one key, linearizable), so many
calls in flight, at the leader of three servers: first ours, then three members of etcd, each with a log that is synced
to the same disk; and so on in turn, so that whatever else the machine is doing falls on both alike. Where no etcd is
installed (Debian: ``etcd-server``), ours alone is measured.

The client is the same for both, and shares the machine with the servers: what it takes a call is told as well, for
where processors are few it is part of what limits both.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

import grpc

from paxos_rsm._proto import kv_pb2, maintenance_pb2
from paxos_rsm.testing.cluster import LocalCluster
from tests.etcd.real_etcd import HOW_TO_INSTALL, RealEtcd, etcd_path

SERVERS = 3
KEYS = 1_000
WARM_UP_S = 0.5
TIMEOUT_S = 60.0
KINDS = ("put", "range")


@dataclass
class Round:
    """What one round of one kind has shown."""

    calls_per_s: float
    server_us: float
    """Processor time of all servers for a call."""
    client_us: float


@dataclass
class Store:
    """Somebody who serves etcd's API: where, and in which processes."""

    name: str
    endpoints: Sequence[str]
    pids: Sequence[int]
    rounds: dict[str, list[Round]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def cpu_s(self) -> float:
        """Processor time of the servers so far."""
        return sum(map(cpu_s, self.pids))

    def median(self, kind: str, of: Callable[[Round], float]) -> float:
        """Of all rounds of a kind."""
        return statistics.median(of(each) for each in self.rounds[kind])


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Unary calls through etcd's API, beside a real etcd.")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind with each store")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--in-flight", type=int, default=64, help="calls in flight")
    parser.add_argument("--value-bytes", type=int, default=200)
    parser.add_argument(
        "--limit", type=float, default=0.0, help="exit with 1 where a ratio to etcd is below it"
    )
    parser.add_argument("-w", dest="output", choices=["simple", "json"], default="simple")
    return parser.parse_args()


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def is_leader(endpoint: str) -> bool:
    """Whether this server says that it leads."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        status: Any = channel.unary_unary(
            "/etcdserverpb.Maintenance/Status",
            request_serializer=maintenance_pb2.EndpointStatusRequest.SerializeToString,
            response_deserializer=maintenance_pb2.EndpointStatusResponse.FromString,
        )
        answer = await status(maintenance_pb2.EndpointStatusRequest(), timeout=TIMEOUT_S, wait_for_ready=True)
    return bool(answer.leader == answer.header.member_id)


async def leader_of(store: Store) -> str:
    """Its endpoint, once there is one."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            for endpoint in store.endpoints:
                if await is_leader(endpoint):
                    return endpoint
            await asyncio.sleep(0.1)


def calls(channel: grpc.aio.Channel, kind: str, value: bytes) -> Iterator[Any]:
    """One call after the other, over keys that come again."""
    put: Any = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=kv_pb2.PutRequest.SerializeToString,
        response_deserializer=kv_pb2.PutResponse.FromString,
    )
    get: Any = channel.unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=kv_pb2.RangeRequest.SerializeToString,
        response_deserializer=kv_pb2.RangeResponse.FromString,
    )
    for number in itertools.count():
        key = b"bench/%010d" % (number % KEYS)
        if kind == "put":
            yield put(kv_pb2.PutRequest(key=key, value=value), timeout=TIMEOUT_S)
        else:
            yield get(kv_pb2.RangeRequest(key=key), timeout=TIMEOUT_S)


async def one_round(
    store: Store, channel: grpc.aio.Channel, kind: str, value: bytes, given: argparse.Namespace
) -> Round:
    """So many calls in flight for so long, after a warm-up."""
    pending = calls(channel, kind, value)
    done = 0
    end = perf_counter() + WARM_UP_S + given.seconds

    async def work() -> None:
        nonlocal done
        while perf_counter() < end:
            answer = await next(pending)
            if kind == "range" and len(answer.kvs) != 1:
                raise SystemExit(f"{store.name} has lost a key: {answer}")
            done += 1

    workers = [asyncio.create_task(work()) for _ in range(given.in_flight)]
    await asyncio.sleep(WARM_UP_S)
    begun, before, client_before, servers_before = perf_counter(), done, process_time(), store.cpu_s()
    await asyncio.sleep(end - perf_counter())
    elapsed_s, counted = perf_counter() - begun, max(1, done - before)
    client_s, servers_s = process_time() - client_before, store.cpu_s() - servers_before
    await asyncio.gather(*workers)
    return Round(counted / elapsed_s, servers_s / counted * 1e6, client_s / counted * 1e6)


async def measure(stores: Sequence[Store], given: argparse.Namespace) -> None:
    """All rounds, the stores in turn."""
    value = b"v" * given.value_bytes
    channels = {store.name: grpc.aio.insecure_channel(await leader_of(store)) for store in stores}
    for store in stores:
        filling = calls(channels[store.name], "put", value)
        for _ in range(KEYS // given.in_flight + 1):
            await asyncio.gather(*itertools.islice(filling, given.in_flight))
    for number in range(given.rounds):
        for kind in KINDS:
            for store in stores if number % 2 == 0 else list(reversed(stores)):
                channel = channels[store.name]
                store.rounds[kind].append(await one_round(store, channel, kind, value, given))
    for channel in channels.values():
        await channel.close()


def ratios(stores: Sequence[Store]) -> dict[str, float]:
    """The first store's calls a second over the second's, by kind: the median of the rounds' ratios."""
    ours, theirs = stores
    return {
        kind: round(
            statistics.median(
                a.calls_per_s / b.calls_per_s
                for a, b in zip(ours.rounds[kind], theirs.rounds[kind], strict=True)
            ),
            2,
        )
        for kind in KINDS
    }


def report(stores: Sequence[Store], in_flight: int) -> None:
    """Prints a line for each kind and store, and the ratios."""
    print(f"unary calls, {in_flight} in flight, load average {os.getloadavg()[0]:.1f}")
    for kind in KINDS:
        for store in stores:
            rates = [each.calls_per_s for each in store.rounds[kind]]
            print(
                f"{kind:5} {store.name:9} {statistics.median(rates):7,.0f}/s ({min(rates):,.0f}–{max(rates):,.0f}), "
                f"processor time a call: servers {store.median(kind, lambda each: each.server_us):,.0f} µs, "
                f"client {store.median(kind, lambda each: each.client_us):,.0f} µs"
            )
    if len(stores) == 2:
        told = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios(stores).items())
        print(f"{stores[0].name} over {stores[1].name}: {told}")
    else:
        print(f"no etcd to compare with; {HOW_TO_INSTALL}")


def as_json(stores: Sequence[Store]) -> str:
    """The same for programs."""
    found: dict[str, Any] = {
        store.name: {kind: [vars(each) for each in store.rounds[kind]] for kind in KINDS} for store in stores
    }
    if len(stores) == 2:
        found["ratios"] = ratios(stores)
    return json.dumps(found)


def main() -> int:
    """Measures and prints; the exit status."""
    given = arguments()
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(SERVERS))
        pids = [server.pid for server in cluster if server.pid is not None]
        stores = [Store("paxos_rsm", cluster.endpoints, pids)]
        if etcd_path() is not None:
            etcd = stack.enter_context(RealEtcd(SERVERS))
            stores.append(Store("etcd", etcd.endpoints, [each.pid for each in etcd._processes]))
        asyncio.run(measure(stores, given))
    if given.output == "json":
        print(as_json(stores))
    else:
        report(stores, given.in_flight)
    return int(len(stores) == 2 and min(ratios(stores).values()) < given.limit)


if __name__ == "__main__":
    sys.exit(main())
