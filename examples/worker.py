"""A worker of which one is active at a time: the others wait, and take over when it goes or dies.

Start a cluster, then this in several terminals::

    paxos-rsm cluster
    python examples/worker.py alice --endpoints 127.0.0.1:2379
    python examples/worker.py bob --endpoints 127.0.0.1:2379

Whoever leads takes the jobs under ``jobs/`` one by one and writes what came of them under ``done/``. Give it work with
``paxos-rsm put jobs/1 hello``. Stop the leader, or kill it: another one goes on where it was, within the lease.

Every result is written in a transaction that holds only while the leader's own key exists, with its fencing token. So a
leader that was paused, and has not heard yet that another one leads, changes nothing any more.
"""

import argparse
import asyncio
import contextlib

from paxos_rsm import AsyncClient, AsyncElection, Compare, KeyValue, LeaseLost, Op


async def finish(kv: AsyncClient, election: AsyncElection, job: KeyValue, result: bytes) -> None:
    """Writes a result and takes the job away, unless somebody else leads by now."""
    done = await (
        kv.txn()
        .when(Compare.create_revision(election.key, "==", election.fencing_token))
        .when(Compare.mod_revision(job.key, "==", job.mod_revision))
        .then(Op.put(job.key.replace(b"jobs/", b"done/", 1), result), Op.delete(job.key))
        .commit()
    )
    print(f"{job.key.decode()}: {'done' if done else 'somebody else was faster'}", flush=True)


async def lead(kv: AsyncClient, election: AsyncElection) -> None:
    """The work of a leader: first what is there, then what comes."""
    seen = await kv.range(prefix="jobs/")
    for job in seen:
        await finish(kv, election, job, job.value.upper())
    async with kv.watch(prefix="jobs/", start_revision=seen.revision + 1, leave_out="delete") as jobs:
        async for event in jobs:
            await finish(kv, election, event.kv, event.value.upper())


async def work(name: str, endpoints: list[str], ttl_s: int) -> None:
    """Campaigns, leads, and campaigns again when the leadership is lost."""
    async with AsyncClient(endpoints) as kv:
        while True:
            async with kv.election("workers", ttl_s=ttl_s) as election:
                token = await election.campaign(name)
                print(f"{name} leads, with fencing token {token}", flush=True)
                try:
                    await election.guard(lead(kv, election))
                except LeaseLost as lost:
                    print(f"{name} leads no more: {lost}", flush=True)


def main() -> None:
    """Runs until it is interrupted; an orderly end resigns at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--endpoints", default="127.0.0.1:2379", help="host:port, several with commas")
    parser.add_argument("--ttl", type=int, default=5, help="seconds until a leader that died is replaced")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work(given.name, given.endpoints.split(","), given.ttl))


if __name__ == "__main__":
    main()
