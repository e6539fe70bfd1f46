"""Leases and the timers under them: docs/adr/0009 and the rules of section 8 of the design."""

from tests.mutants.mutant import Mutant

__all__ = ["LEASES"]

MACHINE = "paxos_rsm.machines.kv.machine"
TABLE = "paxos_rsm.machines.kv.leases"
STORE = "paxos_rsm.machines.kv.store"
TIMERS = "paxos_rsm.replica.timers"

LEASES = (
    Mutant(
        name="time-out-that-a-renewal-has-overtaken",
        module=MACHINE,
        old="            if lease is not None and lease.armed == armed:",
        new="            if lease is not None:",
        rule="a renewed lease lives",
        why="a lease that was kept alive after its end was proposed ends all the same",
    ),
    Mutant(
        name="armings-numbered-by-lease",
        module=TABLE,
        old="        self.armings += 1\n        lease.armed = self.armings",
        new="        self.armings += 1\n        lease.armed += 1",
        rule="a renewed lease lives",
        why="the time-out of a lease that is gone ends a new one of the same id",
    ),
    Mutant(
        name="keep-alive-that-does-not-count",
        module=TIMERS,
        old="        watched.armed, watched.since = timer.armed, self._now",
        new="        watched.armed, watched.since = timer.armed, watched.since or self._now",
        rule="a lease is never early",
        why="the leader counts from the first arming of a lease, however often it was renewed",
    ),
    Mutant(
        name="lease-shorter-than-granted",
        module=TIMERS,
        old="        return max(watched.since, self._base) + watched.ticks + SPARE_TICKS",
        new="        return max(watched.since, self._base) + watched.ticks // 2",
        rule="a lease is never early",
        why="a lease ends after half of its time",
    ),
    Mutant(
        name="followers-forget-the-timers",
        module=TIMERS,
        old="        for timer in source.take_timers():\n            self._arm(timer)",
        new="        for timer in source.take_timers():\n            if leading:\n                self._arm(timer)",
        rule="a lease ends",
        why="a new leader knows nothing of the leases granted before it led, which live for ever",
    ),
    Mutant(
        name="time-out-proposed-once",
        module=TIMERS,
        old="                due = now + self._repeat_ticks",
        new="                due = now + (1 << 40)",
        rule="a lease ends",
        why="where the proposal of its end is lost, or void, a lease lives for ever",
    ),
    Mutant(
        name="lease-keeps-keys-it-lost",
        module=STORE,
        old="""
            if old[LEASE]:
                self.leases.detach(old[LEASE], key)
        if lease:
""",
        new="""
        if lease:
""",
        rule="a key belongs to the lease of its newest version",
        why="a key that was written again without its lease goes with the lease all the same",
    ),
    Mutant(
        name="put-with-a-lease-that-is-gone",
        module=STORE,
        old="""
            error = self.put_error(command)
            if error is not None:
                return error
""",
        new="""
            error = self.put_error(command)
            if error is LEASE_NOT_FOUND:
                lease = 0
            elif error is not None:
                return error
""",
        rule="requested lease not found",
        why="a put whose lease has ended is taken, and its key stays for ever",
    ),
    Mutant(
        name="revoked-lease-leaves-a-key",
        module=STORE,
        old="        for key in found.keys:\n            self._delete(key, revision)",
        new="        for key in found.keys[:1]:\n            self._delete(key, revision)",
        rule="a lease takes its keys with it",
        why="of the keys of a lease, only the first goes with it",
    ),
)
