"""Exactly once: rule 11."""

from tests.mutants.mutant import Mutant

__all__ = ["SESSIONS"]

REPLICA = "paxos_rsm.replica.replica"
TABLE = "paxos_rsm.machines.sessions"

SESSIONS = (
    Mutant(
        name="gap-applied",
        module=TABLE,
        old="            return Gap(frame.session, first_seq, next_seq)",
        new="""
            session.results += [b""] * (first_seq - next_seq)
            session.next_seq = next_seq = first_seq
""",
        rule="rule 11",
        why="a frame is executed although one before it was lost, whose commands then count as executed",
    ),
    Mutant(
        name="retried-command-executed-again",
        module=TABLE,
        old="        next_seq = session.next_seq\n        if frame.received_below",
        new="""
        next_seq = session.next_seq
        if frame.commands and 1 <= frame.first_seq < next_seq:
            return Executed(
                frame.session, frame.first_seq, self._run(frame.commands, Position(slot, index)), next_seq
            )
        if frame.received_below
""",
        rule="rule 11",
        why="a frame that comes a second time is executed a second time",
    ),
    Mutant(
        name="frame-cut-differently-executed-again",
        module=TABLE,
        old="            results = self._run(commands[known:] if known else commands, Position(slot, index + known))",
        new="            results = self._run(commands, Position(slot, index))[known:]",
        rule="rule 11",
        why="of a retried frame that also holds new commands, the old ones are executed again",
    ),
    Mutant(
        name="result-of-another-command",
        module=TABLE,
        old="            start = first_seq - session.received_below",
        new="            start = max(0, first_seq - session.received_below - 1)",
        rule="rule 11",
        why="a retried command is answered with the result of the one before it",
    ),
    Mutant(
        name="results-forgotten-before-received",
        module=TABLE,
        old="""
        if frame.received_below > session.received_below:
            received_below = min(frame.received_below, next_seq)
""",
        new="""
        if frame.first_seq > session.received_below:
            received_below = min(frame.first_seq, next_seq)
""",
        rule="rule 11",
        why="results are dropped once the next frame comes, whether the client has them or not",
    ),
    Mutant(
        name="expire-of-a-session-that-moved",
        module=TABLE,
        old="        void = session is None or session.next_seq - 1 != expire.last_seq",
        new="        void = session is None",
        rule="rule 11",
        why="a session is ended although it has executed a command since that was proposed",
    ),
    Mutant(
        name="expired-session-comes-back",
        module=TABLE,
        old="""
        if session is None:
            return Expired(frame.session, first_seq)
""",
        new="""
        if session is None:
            session = self._sessions[frame.session] = _Session(60_000, slot)
            session.next_seq = session.received_below = max(1, first_seq)
""",
        rule="rule 11",
        why="a frame of an expired session opens it anew, with nothing known of what it has executed",
    ),
    Mutant(
        name="two-sessions-one-number",
        module=TABLE,
        old="            number = slot << FRAME_INDEX_BITS | frame_index",
        new="            number = slot << FRAME_INDEX_BITS",
        rule="rule 11",
        why="two sessions that are registered in one slot get one number",
    ),
    Mutant(
        name="nonce-not-unique",
        module=REPLICA,
        old="            return self.local.register(sink, self._nonce(), timeout_ms)",
        new="            return self.local.register(sink, len(self.local) + 1 + 0 * self._nonce(), timeout_ms)",
        rule="rule 11",
        why="a server takes the registration that another one proposed for its own",
    ),
    Mutant(
        name="resumed-from-a-stale-state",
        module=REPLICA,
        old="        self.read(lambda applied: self._resumed(handle, applied))",
        new="        self._resumed(handle, self.machine.applied_slot)",
        rule="rule 11",
        why="a session that a server has not heard of yet is told that it has expired",
    ),
)
