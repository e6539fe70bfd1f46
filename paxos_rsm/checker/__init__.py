"""Was it linearizable? Histories of what clients saw, and the checks that judge them.

`history.py` records and keeps histories; `models.py` says what the objects are meant to do; `linearizability.py` checks
the one against the other, by the search in `wgl.py` over the layout of `partition.py`; `revisions.py` checks
transactions and ranges by replaying revisions; `timeline.py` draws what was found. Nothing here knows the code that it
judges: it imports the errors and the standard library, and can check the histories of any system.
"""

from paxos_rsm.checker import models
from paxos_rsm.checker.history import Operation, Recorder, read_history, write_history
from paxos_rsm.checker.linearizability import check
from paxos_rsm.checker.model import Model
from paxos_rsm.checker.result import Result, Verdict
from paxos_rsm.checker.revisions import check_revisions
from paxos_rsm.checker.timeline import draw_html, draw_svg

__all__ = [
    "Model",
    "Operation",
    "Recorder",
    "Result",
    "Verdict",
    "check",
    "check_revisions",
    "draw_html",
    "draw_svg",
    "models",
    "read_history",
    "write_history",
]
