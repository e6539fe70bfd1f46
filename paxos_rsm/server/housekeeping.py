"""What a key-value store needs done from time to time, and nobody asks for: its quota, compactions, tidiness.

Once a second, and twenty times a second as long as the state has another quota than the settings (a new cluster has
none until its first leader sets it), a server looks whether there is something to do:

- the server that *leads* proposes ``SetQuota`` where the quota in the state is not the one in its settings, and
  ``Compact`` where automatic compaction says so (machines/kv/autocompaction.py). Both go through the sessions of the
  server, so each is executed once; and both may be proposed by two leaders in turn without harm: a quota that is set
  again is the same one, and the store refuses a compaction at a revision that is compacted;
- every server, where nothing was applied since the last look, drops what compactions have freed;
- every server says in its log that the state has come to the quota, and that it is below it again.

One command at a time is on its way: the next look proposes nothing while the log has not answered.

``SetQuota`` is a command that earlier versions answer with an error: a state in which it has an effect and one in which
it has none have come apart. So it is proposed only while every member of the configuration is connected, and has said
in its Hello that it knows the command (:data:`QUOTA_LEVEL`; ``Transport.least_level``). A cluster that is upgraded a
server at a time gets its quota once the last one is new; from then on no server can go back to an earlier version.

The settings of whoever leads count: members should agree on them.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from paxos_rsm.codec.kv import encode_command
from paxos_rsm.errors import PaxosRsmError
from paxos_rsm.machines.kv.autocompaction import AutoCompaction
from paxos_rsm.machines.kv.machine import KeyValueMachine
from paxos_rsm.machines.kv.types import Compact, KvError, SetQuota
from paxos_rsm.replica.api import ReplicaHandle
from paxos_rsm.server.own_sessions import OwnSessions

__all__ = ["LOOK_S", "QUOTA_LEVEL", "UNSET_LOOK_S", "Housekeeping"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
UNSET_LOOK_S = 0.05
"""While the quota is not set; what is written until then is not held against it."""
QUOTA_LEVEL = 1
"""Of what a server says that it understands (transport/handshake.py): from here on it knows SetQuota."""

TIDY_RECORDS = 1000
"""At a time, about a millisecond's work."""
TIDY_S = 0.005


class Housekeeping:
    """See the module's docstring. One event loop, no locks."""

    def __init__(
        self,
        replica: ReplicaHandle,
        machine: KeyValueMachine,
        own: OwnSessions,
        *,
        quota_bytes: int,
        compaction: AutoCompaction | None,
        least_level: Callable[[], int],
        look_s: float = LOOK_S,
    ) -> None:
        """``quota_bytes`` 0: none. ``least_level``: what all members of the configuration are known to understand."""
        self._replica = replica
        self._machine = machine
        self._own = own
        self._quota_bytes = quota_bytes
        self._compaction = compaction
        self._least_level = least_level
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._pending: asyncio.Future[Any] | None = None
        self._installing = False
        self._applied_slot = -1
        self._was_full = False
        replica.watch_install(self._install)

    def start(self) -> None:
        """Begins to look."""
        self._timer = self._loop.call_later(min(self._look_s, UNSET_LOOK_S), self._look)

    def stop(self) -> None:
        """Does nothing more; what is on its way may still be executed."""
        for timer in (self._timer, self._tidying):
            if timer is not None:
                timer.cancel()

    def _install(self, begins: bool) -> None:
        self._installing = begins

    # ---- a look ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        unset = self._machine.quota_bytes != self._quota_bytes
        self._timer = self._loop.call_later(
            min(self._look_s, UNSET_LOOK_S) if unset else self._look_s, self._look
        )
        status = self._replica.status()
        if self._installing:
            return
        if status.applied_slot == self._applied_slot:
            self._tidy()
        self._applied_slot = status.applied_slot
        if self._machine.is_over_quota != self._was_full:
            self._say_full()
        if status.role != "leader":
            if self._compaction is not None:
                self._compaction.forget()
            return
        if self._pending is None or self._pending.done():
            command = self._due()
            if command is not None:
                self._propose(command)

    def _say_full(self) -> None:
        machine = self._machine
        self._was_full = machine.is_over_quota
        sizes = {"state_bytes": machine.state_bytes, "quota_bytes": machine.quota_bytes}
        if self._was_full:
            log.warning(
                "the state has come to its quota: puts are refused (NOSPACE) until something is deleted and compacted, "
                "or the servers are started with a larger --quota-backend-bytes",
                extra=sizes,
            )
        else:
            log.info("the state is below its quota again: puts are taken", extra=sizes)

    def _due(self) -> SetQuota | Compact | None:
        machine = self._machine
        if machine.quota_bytes != self._quota_bytes and self._least_level() >= QUOTA_LEVEL:
            return SetQuota(self._quota_bytes)
        if self._compaction is None:
            return None
        now_ms = int(self._loop.time() * 1000)
        revision = self._compaction.observe(now_ms, machine.revision, machine.compacted_revision)
        return Compact(revision) if revision is not None else None

    def _propose(self, command: SetQuota | Compact) -> None:
        try:
            pending = self._pending = self._own.submit(encode_command(command))
        except PaxosRsmError as error:
            log.debug("put off: %s", error)
            return
        pending.add_done_callback(lambda done: self._done(command, done))

    def _done(self, command: SetQuota | Compact, done: "asyncio.Future[Any]") -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            log.info("what became of %s is not known: %s", command, error or "this server stops")
        elif isinstance(result := done.result(), KvError):
            log.info("%s was of no use: %s", command, result.message)
        elif isinstance(command, SetQuota):
            log.info("set the quota", extra={"bytes": command.quota_bytes, "state_bytes": result.state_bytes})
        else:
            log.info("compacted by itself", extra={"revision": command.revision})

    def _tidy(self) -> None:
        """Drops some of what compactions have freed, and goes on soon, as long as nothing else is done here."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        if not self._installing and self._machine.tidy(TIDY_RECORDS):
            self._tidying = self._loop.call_later(TIDY_S, self._tidy_on)

    def _tidy_on(self) -> None:
        self._tidying = None
        if self._replica.status().applied_slot == self._applied_slot:
            self._tidy()
