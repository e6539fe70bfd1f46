"""The key-value store: what section 8 of the design promises of revisions and transactions."""

from tests.mutants.mutant import Mutant

__all__ = ["STORE"]

KV = "paxos_rsm.machines.kv.store"
TXN = "paxos_rsm.machines.kv.txn"

STORE = (
    Mutant(
        name="delete-without-revision",
        module=KV,
        old="""
        self.revision = revision
        deletion: Record
""",
        new="""
        revision = self.revision
        deletion: Record
""",
        rule="one revision a transaction",
        why="a delete does not raise the revision of the store",
    ),
    Mutant(
        name="put-keeps-older-value",
        module=KV,
        old="            record = (key, old[CREATE], revision, old[VERSION] + 1, value, lease)\n            older =",
        new="            record = (key, old[CREATE], revision, old[VERSION] + 1, max(value, old[VALUE]), lease)\n"
        "            older =",
        rule="linearizable",
        why="a put of a smaller value than the one there is answered, and does nothing",
    ),
    Mutant(
        name="compare-after-the-puts",
        module=TXN,
        old="    return _run(store, plan, store.revision + 1)",
        new="    return _run(store, _Plan(True, _plan(store, txn._replace(compare=())).steps), store.revision + 1)",
        rule="linearizable",
        why="the conditions of a transaction do not see the state before it: the branch of success is always taken",
    ),
    Mutant(
        name="half-a-transaction-is-seen",
        module=TXN,
        old="    return _run(store, plan, store.revision + 1)",
        new="    return _run(store, plan, 0)",
        rule="one revision a transaction",
        why="each operation of a transaction has a revision of its own",
    ),
    Mutant(
        name="set-iterated-in-apply",
        module=KV,
        old="        for key in keys:\n            self._delete(key, revision)",
        new="        for key in set(keys):\n            self._delete(key, revision)",
        rule="equal logs, equal states",
        why="a delete of a range goes through a set, whose order differs between servers",
        hash_seeds=True,
    ),
    Mutant(
        name="state-hangs-on-addresses",
        module=KV,
        old="            self._delete(key, revision)\n        return",
        new="""
            self._delete(key, revision)
        self._log.records.sort(key=lambda record: (record[MOD], id(record[KEY])))
        return
""",
        rule="equal logs, equal states",
        why="the order of what one transaction deletes depends on where the process happens to keep the keys",
    ),
)
