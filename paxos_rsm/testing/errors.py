"""What goes wrong in the test bench itself, as distinct from what is tested.

::

    PaxosRsmError
    └── LocalClusterError       the cluster, or a fault, did not do what was asked
        └── FaultUnavailable    this machine cannot show that fault; the message says what is missing

A test that meets :class:`FaultUnavailable` skips, with the message as its reason: a machine without a compiler or
without root shows fewer faults, and says so aloud.
"""

from paxos_rsm.errors import PaxosRsmError

__all__ = ["FaultUnavailable", "LocalClusterError"]


class LocalClusterError(PaxosRsmError):
    """The cluster did not do what was asked, in time; the message has the end of the log where that helps."""

    @property
    def headline(self) -> str:
        """The message in one line: of the log only the last line, where there is one."""
        first, *log = str(self).splitlines()
        return f"{first}: {log[-1].partition('| ')[2]}" if log else first


class FaultUnavailable(LocalClusterError):
    """This machine cannot show the fault that was asked for: it lacks a compiler, a permission, a system call."""
