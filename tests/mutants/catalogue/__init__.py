"""Every planted bug, by what it is about.

Left out are the features that do not exist yet (snapshots, compaction of the log): whoever builds them plants theirs.
"""

from tests.mutants.catalogue.disk import DISK
from tests.mutants.catalogue.learning import LEARNING
from tests.mutants.catalogue.leases import LEASES
from tests.mutants.catalogue.members import MEMBERS
from tests.mutants.catalogue.promises import PROMISES
from tests.mutants.catalogue.reads import READS
from tests.mutants.catalogue.sessions import SESSIONS
from tests.mutants.catalogue.store import STORE
from tests.mutants.catalogue.values import VALUES
from tests.mutants.mutant import Mutant

__all__ = ["MUTANTS"]

MUTANTS: tuple[Mutant, ...] = (
    *PROMISES,
    *VALUES,
    *LEARNING,
    *READS,
    *SESSIONS,
    *STORE,
    *LEASES,
    *DISK,
    *MEMBERS,
)
