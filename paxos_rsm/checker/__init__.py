"""Was it linearizable? Histories of what clients saw, and the checks that judge them."""

from paxos_rsm.checker.history import Operation, Recorder, read_history, write_history
from paxos_rsm.checker.result import Result, Verdict

__all__ = ["Operation", "Recorder", "Result", "Verdict", "read_history", "write_history"]
