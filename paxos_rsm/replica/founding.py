"""The state that a cluster was founded on, put into the state machine before slot 1 is applied (storage/initial.py).

It is needed only where no snapshot is newer. Where it does not hold any more, and this server has taken part in the
cluster since, the others have a state: the server waits for a snapshot of one of them. Where it never has, nobody else
may have one either, and the server says so and stops.
"""

import logging

from paxos_rsm.errors import ConfigError, MachineFailed, SnapshotDamaged
from paxos_rsm.machines.base import StateMachine
from paxos_rsm.storage.directory import DataDirectory

__all__ = ["restore_initial"]

log = logging.getLogger(__name__)


def restore_initial(directory: DataDirectory, machine: StateMachine) -> bool:
    """Restores what the directory began with, if with anything; False where that is not here (any more).

    Raises ConfigError where it is the state of another state machine, SnapshotDamaged, MachineFailed, StorageError.
    """
    try:
        initial = directory.initial()
    except SnapshotDamaged as error:
        if directory.recovered.is_empty:
            raise
        log.error("%s; this server waits for a snapshot of another member", error)
        return False
    if initial is None:
        return True
    saved = initial.backup.head.machine
    # Where a class is found may change with the years; what it is called is what can be told.
    if saved.rpartition(":")[2].rpartition(".")[2] != type(machine).__qualname__.rpartition(".")[2]:
        raise ConfigError(
            f"the state in {directory.path} was saved by the state machine {saved}, and this server runs "
            f"{type(machine).__module__}:{type(machine).__qualname__}; start it with --machine {saved}"
        )
    try:
        machine.restore(initial.slices)
        for _ in initial.slices:  # what the machine did not want is to be there, too
            pass
    except (MachineFailed, SnapshotDamaged):
        raise
    except Exception as error:
        raise MachineFailed(
            f"the state machine {saved} does not take back the state in {initial.backup.path}: "
            f"{type(error).__name__}: {error}. Start a version of it that does, or restore another backup"
        ) from error
    log.info("began with a restored state", extra={"backup": initial.backup.sha256, "machine": saved})
    return True
