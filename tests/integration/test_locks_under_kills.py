"""Contenders for one lock while leaders are killed: never two holders, tokens that only grow, and no lock of the dead.

Each holder writes into a register that refuses lower tokens. What the holders did is told three times over, and each
is checked: by the register's own history, by the times between which each held the lock on this side's clock, and as a
history for the checker's model of a lock.
"""

import asyncio
import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from paxos_rsm import AsyncClient, Compare, Op
from paxos_rsm.checker import Recorder, check, models
from paxos_rsm.client.locks import AsyncLock
from paxos_rsm.testing.cluster import LocalCluster
from tests.integration.kills import LONG, Ballots, ballots_of, client_from, kill_leaders

TTL_S = 4
DYING_TTL_S = 2
KILL_EVERY_S = 6.0
FIRST_DEATH_S = 0.5
DEATHS_EVERY_S = 12.0
"""So often the one who holds the lock dies with it."""
SLACK_S = 30.0
"""Beyond the leases' times, for elections and a busy machine; what was needed is told."""
TIMEOUT_S = 120.0

HOLDER = """
import asyncio, sys
from paxos_rsm import AsyncClient

async def hold():
    kv = AsyncClient(sys.argv[1].split(","), timeout_s=60)
    print(await kv.lock(sys.argv[2], ttl_s=int(sys.argv[3])).acquire(), flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""
"""A process that takes a lock, prints its token, and keeps it until it is killed."""


def padded(token: int) -> str:
    """Numbers whose order as bytes is their own."""
    return f"{token:020}"


class Hold(NamedTuple):
    """That somebody held the lock, by time.monotonic() of this process."""

    token: int
    owner: str
    begin: float
    end: float
    """Until when it was known to be held: its release, the death of its owner, the last moment before it was lost."""
    died: bool = False


@dataclass
class Names:
    """Keys of one test."""

    lock: str
    guard: str
    """The highest token that the register has seen."""
    register: str

    @classmethod
    def of(cls, case: str) -> "Names":
        return cls(f"locks/{case}", f"guard/{case}", f"register/{case}")


async def write_fenced(kv: AsyncClient, names: Names, token: int, owner: str) -> bool:
    """Writes into the register, which refuses whoever comes with a lower token than it has seen."""
    written = await kv.txn(
        [Compare.value(names.guard, "<", padded(token))],
        [Op.put(names.guard, padded(token)), Op.put(names.register, f"{token} {owner}")],
    )
    return bool(written)


class Contention:
    """Contenders that take turns with the lock until they are told to stop. Some of them die, and others come."""

    def __init__(self, cluster: LocalCluster, names: Names) -> None:
        self.stopping = False
        self.holds: list[Hold] = []
        self.fenced_off = 0
        self.recorder = Recorder(lambda: time.monotonic() * 1000)
        self._cluster = cluster
        self._names = names
        self._dead_tokens: list[int] = []
        self._next_death = time.monotonic() + FIRST_DEATH_S

    async def contend(self, number: int) -> None:
        """One contender: a client after the other, each until it dies."""
        chance = random.Random(number)
        for life in itertools.count():
            async with client_from(self._cluster, number + life) as kv:
                while not self.stopping:
                    if not await self._turn(kv, f"{number}.{life}", chance):
                        break  # closing the client lets the lease run out
            if self.stopping:
                return

    async def _turn(self, kv: AsyncClient, owner: str, chance: random.Random) -> bool:
        """Takes the lock, does its work and releases it; False where it is to die with it."""
        lock = kv.lock(self._names.lock, ttl_s=TTL_S)
        acquiring = self.recorder.call(owner, "acquire", self._names.lock)
        token = await lock.acquire()
        self.recorder.ok(acquiring, token)
        begin = last_held = time.monotonic()
        written = await write_fenced(kv, self._names, token, owner)
        if lock.held:
            last_held = time.monotonic()
            assert written, f"{owner} holds the lock with token {token}, and was fenced off"
            await self._try_old_tokens(kv)
        elif not written:
            self.fenced_off += 1
        await asyncio.sleep(chance.uniform(0, 0.02))
        if lock.held:
            if time.monotonic() >= self._next_death and not self.stopping:
                self._next_death = time.monotonic() + DEATHS_EVERY_S
                self._dies(lock, Hold(token, owner, begin, time.monotonic(), died=True))
                return False
            last_held = time.monotonic()
        self.holds.append(Hold(token, owner, begin, last_held))
        await self._release(lock, owner, last_held)
        return True

    async def _try_old_tokens(self, kv: AsyncClient) -> None:
        """As would a holder that was paused, and does not know that it is dead: the register refuses it."""
        for token in self._dead_tokens:
            assert not await write_fenced(kv, self._names, token, "a ghost"), f"token {token} was let in"
        self._dead_tokens.clear()

    def _dies(self, lock: AsyncLock, hold: Hold) -> None:
        self.holds.append(hold)
        self._dead_tokens.append(hold.token)
        self._expires(hold.owner, deadline_of(lock))

    async def _release(self, lock: AsyncLock, owner: str, last_held: float) -> None:
        if not lock.held:
            self._expires(owner, last_held)
            await lock.release()  # its lease may have ended or not: the key goes
            return
        deadline = deadline_of(lock)
        releasing = self.recorder.call(owner, "release", self._names.lock)
        await lock.release()
        if time.monotonic() < deadline:
            self.recorder.ok(releasing)
        # Otherwise the lease may have run out before the release came: by one of the two it was free.

    def _expires(self, owner: str, at: float) -> None:
        expiring = self.recorder.call(owner, "expire", self._names.lock)
        expiring.call = at * 1000


def deadline_of(lock: AsyncLock) -> float:
    """Before this, by time.monotonic(), no server can have ended its lease."""
    assert lock.lease is not None
    return lock.lease._deadline


def check_times(holds: list[Hold]) -> None:
    """By token, each began when the one before it had ended: never two at a time."""
    for before, after in itertools.pairwise(holds):
        assert before.token < after.token, f"one token, two holders: {before}, {after}"
        assert before.end <= after.begin, f"two held it at once: {before}, {after}"


def check_freed(holds: list[Hold], ballots: Ballots) -> list[float]:
    """Whoever died had lost the lock in time; how long each took beyond the leases' times, in seconds."""
    excesses = []
    for before, after in itertools.pairwise(holds):
        if before.died:
            took = after.begin - before.end
            changes = ballots.changes(before.end, after.begin)
            excess = took - TTL_S * (1 + changes)
            assert excess <= SLACK_S, f"{took:.1f} s, {changes} changes of leader: {before}, {after}"
            excesses.append(excess)
    return excesses


async def check_register(kv: AsyncClient, names: Names, first_revision: int, holds: list[Hold]) -> None:
    """What the store says of it: tokens that only grow, each written by the one who held it."""
    owners = {hold.token: hold.owner for hold in holds}
    last = await kv.get(names.register)
    written: list[int] = []
    async with kv.watch(names.register, start_revision=first_revision) as watch:
        while watch.resume_revision <= last.mod_revision:
            for event in await watch.next_batch():
                token, owner = event.value.decode().split()
                written.append(int(token))
                assert owners[int(token)] == owner
    assert written == sorted(set(written)), "the register let a lower token in"
    assert written[-1] == max(owners)


async def until_all_gone(kv: AsyncClient, names: Names) -> None:
    """No key of the lock is left, nor a lease: those of the dead end by themselves."""
    async with asyncio.timeout(TIMEOUT_S):
        while await kv.range(prefix=f"{names.lock}/") or await kv.leases():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("contenders", "kills"),
    [pytest.param(6, 1, id="short"), pytest.param(20, 10, id="long", marks=LONG)],
)
async def test_never_two_holders(
    cluster: LocalCluster, contenders: int, kills: int, tell: Callable[[str], None]
) -> None:
    names = Names.of(f"{contenders} contenders")
    contention = Contention(cluster, names)
    async with client_from(cluster, 0) as kv, ballots_of(cluster) as ballots:
        await kv.put(names.guard, padded(0))
        first_revision = (await kv.get(names.guard)).revision + 1
        tasks = [asyncio.create_task(contention.contend(number)) for number in range(contenders)]
        killed = await kill_leaders(cluster, kills, KILL_EVERY_S)
        enough = len(contention.holds) + contenders
        async with asyncio.timeout(TIMEOUT_S):
            while len(contention.holds) < enough:
                for task in (await asyncio.wait(tasks, timeout=0.05))[0]:
                    await task  # raises what went wrong: none ends by itself
        contention.stopping = True
        await asyncio.wait_for(asyncio.gather(*tasks), TIMEOUT_S)
        holds = sorted(contention.holds)
        check_times(holds)
        excesses = check_freed(holds, ballots)
        await check_register(kv, names, first_revision, holds)
        await until_all_gone(kv, names)
    history = contention.recorder.operations
    result = await asyncio.to_thread(check, history, models.Lock, timeout_s=TIMEOUT_S)
    assert result, result
    beyond = f"at worst {max(excesses):.1f} s beyond its leases" if excesses else "nothing to free"
    tell(
        f"{contenders} contenders, {len(killed)} leaders killed: {len(holds)} holds, one at a time; "
        f"{len(excesses)} holders died ({beyond}); {contention.fenced_off} fenced off; "
        f"a history of {result.operations} operations agrees with the model of a lock"
    )


async def test_a_process_that_is_killed_with_the_lock(
    cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    """SIGKILL to the holder, and right after it to the leader: the next leader gives the lease its full time again."""
    name = "locks/process"
    arguments = ["-c", HOLDER, ",".join(cluster.endpoints), name, str(DYING_TTL_S)]
    async with client_from(cluster, 0) as kv, ballots_of(cluster) as ballots:

        async def wait_for_it() -> tuple[int, float]:
            return await kv.lock(name, ttl_s=TTL_S).acquire(), time.monotonic()

        holder = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            token = int(await asyncio.wait_for(holder.stdout.readline(), TIMEOUT_S))
            waiting = asyncio.create_task(wait_for_it())
            async with asyncio.timeout(TIMEOUT_S):
                while len(await kv.range(prefix=f"{name}/")) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            holder.kill()
            await holder.wait()
        died = time.monotonic()
        await kill_leaders(cluster, 1, 0)
        next_token, freed = await asyncio.wait_for(waiting, TIMEOUT_S)
        changes = ballots.changes(died, freed)
    assert next_token > token
    assert freed - died <= DYING_TTL_S * (1 + changes) + SLACK_S
    tell(
        f"a lock of {DYING_TTL_S} s was free {freed - died:.1f} s after its process was killed, "
        f"with {changes} changes of leader"
    )
