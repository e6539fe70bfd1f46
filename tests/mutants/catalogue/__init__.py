"""Every planted bug, by what it is about."""

from tests.mutants.catalogue.disk import DISK
from tests.mutants.catalogue.learning import LEARNING
from tests.mutants.catalogue.leases import LEASES
from tests.mutants.catalogue.members import MEMBERS
from tests.mutants.catalogue.promises import PROMISES
from tests.mutants.catalogue.read_ways import READ_WAYS
from tests.mutants.catalogue.reads import READS
from tests.mutants.catalogue.sessions import SESSIONS
from tests.mutants.catalogue.snapshots import SNAPSHOTS
from tests.mutants.catalogue.states import STATES
from tests.mutants.catalogue.store import STORE
from tests.mutants.catalogue.values import VALUES
from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: tuple[Mutant, ...] = (
    *PROMISES,
    *VALUES,
    *LEARNING,
    *READS,
    *READ_WAYS,
    *SESSIONS,
    *STORE,
    *LEASES,
    *DISK,
    *SNAPSHOTS,
    *STATES,
    *MEMBERS,
)
