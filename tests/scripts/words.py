"""Messages, writes and entries in the words of the protocol."""

from paxos_rsm.codec.frames import decode_frame
from paxos_rsm.machines.frames import BadFrame
from paxos_rsm.paxos import messages as m
from paxos_rsm.paxos.changes import (
    AddMember,
    Change,
    JoinMember,
    PromoteMember,
    RemoveMember,
)
from paxos_rsm.paxos.membership import Configuration
from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import NO_BALLOT, Ballot, Batch, ConfigChange, Entry, Slot, split_frames


def ballot_words(ballot: Ballot) -> str:
    """Round and node: ``2.1``."""
    return "none" if ballot == NO_BALLOT else f"{ballot.round}.{ballot.node}"


def session_words(session: int) -> str:
    """A session is named by the slot that registered it, and the index of the frame there."""
    return f"session {session >> 16}.{session & 0xFFFF}"


def frame_words(frame: bytes) -> str:
    """A frame: text where a script made it (a large one is shown by its size), else what a client said in it."""
    if frame.isascii() and frame.decode().isprintable():
        text = frame.decode()
        return text if len(text) <= 12 else f"{text[0]}...({len(text)} bytes)"
    said = decode_frame(frame)
    if isinstance(said, BadFrame):
        return "no frame"
    if said.register is not None:
        return "register"
    if said.expire is not None:
        return f"expire {session_words(said.expire.session)} unless past {said.expire.last_seq}"
    if not said.commands:
        return f"{session_words(said.session)} lives"
    commands = " ".join(command.decode() for command in said.commands)
    return f"{session_words(said.session)} from {said.first_seq}: {commands}"


def members_words(configuration: Configuration) -> str:
    """The voters, and who else there is."""
    words = numbers(sorted(configuration.nodes))
    for member in configuration.members:
        if not member.incarnation:
            words += f", awaited {member.member_id}"
        elif member.learner:
            words += f", learner {member.incarnation}"
    return words


def change_words(change: Change) -> str:
    """What is asked for."""
    if isinstance(change, AddMember):
        return f"add member {change.member.member_id}"
    if isinstance(change, JoinMember):
        return f"member {change.member_id} is {change.incarnation}"
    if isinstance(change, RemoveMember):
        return f"remove member {change.member_id}"
    if isinstance(change, PromoteMember):
        return f"promote member {change.member_id}"
    return f"member {change.member_id} is at {change.peer_url}"


def entry_words(entry: Entry) -> str:
    """What an entry holds."""
    if isinstance(entry, Batch):
        return "+".join(map(frame_words, split_frames(entry.data)))
    if isinstance(entry, ConfigChange):
        changed = entry.configuration.changes
        return ("members " if changed else "genesis of ") + members_words(entry.configuration)
    return "no-op"


def numbers(values: "list[int] | tuple[int, ...]") -> str:
    """``1, 2``, or ``1..5`` where they are many and without a gap."""
    if len(values) > 3 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))


def slots_words(slots: "list[Slot] | tuple[Slot, ...]") -> str:
    """``slot 2``, ``slots 2, 3``."""
    return f"slot {slots[0]}" if len(slots) == 1 else f"slots {numbers(slots)}"


def decided_words(entries: tuple[tuple[Slot, Entry], ...]) -> str:
    """Decided entries; of many only the ends."""
    if len(entries) > 4:
        return f"slots {entries[0][0]}..{entries[-1][0]}"
    return "; ".join(f"slot {slot}: {entry_words(entry)}" for slot, entry in entries) or "nothing"


def promise_words(message: m.Promise) -> str:
    """A chunk of phase 1b."""
    to = "" if message.last is None else f" to {message.last}"
    parts = [f"Promise ballot {ballot_words(message.ballot)} covers from slot {message.first}{to}"]
    if message.compacted_through >= message.first:
        parts.append(f"but slots up to {message.compacted_through} are compacted")
    if message.unreadable:
        parts.append(f"but {slots_words(message.unreadable)} unreadable")
    parts += [f"voted {ballot_words(b)} slot {slot}: {entry_words(e)}" for slot, b, e in message.accepted]
    parts += [f"decided slot {slot}: {entry_words(e)}" for slot, e in message.decided]
    if not message.accepted and not message.decided:
        parts.append("holds nothing there")
    return "; ".join(parts)


def heartbeat_words(message: m.Heartbeat) -> str:
    """What a member says of itself."""
    if message.leading:
        who = f"leads {ballot_words(message.ballot)}"
    elif message.ballot == NO_BALLOT:
        who = "follows nobody"
    else:
        who = f"follows {ballot_words(message.ballot)}"
    asked = f", asks round {message.round} to be confirmed" if message.round else ""
    held = " and held" if message.hold_us else ""
    return f"Heartbeat {who}, watermark {message.decided_through}, hears {numbers(sorted(message.reach))}{asked}{held}"


def message_words(message: m.Message) -> str:
    """A message, its kind first."""
    if isinstance(message, m.Prepare):
        handed = (
            f" (handed over by {ballot_words(message.given_up)})" if message.given_up != NO_BALLOT else ""
        )
        return f"Prepare ballot {ballot_words(message.ballot)} from slot {message.first}{handed}"
    if isinstance(message, m.Promise):
        return promise_words(message)
    if isinstance(message, m.Accept):
        return (
            f"Accept ballot {ballot_words(message.ballot)} slot {message.slot}: {entry_words(message.entry)}"
            f" (watermark {message.decided_through})"
        )
    if isinstance(message, m.Accepted):
        return f"Accepted ballot {ballot_words(message.ballot)} {slots_words(message.slots)}"
    if isinstance(message, m.Nack):
        return f"Nack to {ballot_words(message.refused)}: promised {ballot_words(message.promised)}"
    if isinstance(message, m.Decide):
        return f"Decide ballot {ballot_words(message.ballot)} watermark {message.decided_through}"
    if isinstance(message, m.Heartbeat):
        return heartbeat_words(message)
    if isinstance(message, m.HeartbeatReply):
        held = ", holds" if message.held else ""
        return f"HeartbeatReply ballot {ballot_words(message.ballot)} round {message.round}{held}"
    if isinstance(message, m.CatchUp):
        return f"CatchUp from slot {message.first} to {message.last}"
    if isinstance(message, m.CatchUpReply):
        return f"CatchUpReply {decided_words(message.entries)} (promised {ballot_words(message.promised)})"
    if isinstance(message, m.Forward):
        frames = ", ".join(map(frame_words, message.frames))
        return f"Forward {frames}" + (" (second hop)" if message.hops else "")
    if isinstance(message, m.ReadRequest):
        return (
            "ReadRequest"
            + (" for what is accepted" if message.accepted else "")
            + (" (second hop)" if message.hops else "")
        )
    if isinstance(message, m.ReadReply):
        return f"ReadReply index {message.index}" if message.index else "ReadReply refused"
    if isinstance(message, m.ChangeRequest):
        hops = " (second hop)" if message.hops else ""
        return f"ChangeRequest {message.request_id}: {change_words(message.change)}{hops}"
    if isinstance(message, m.ChangeReply):
        return f"ChangeReply {message.request_id}: {message.refusal or 'done'}"
    if isinstance(message, m.HandOver):
        return f"HandOver ballot {ballot_words(message.ballot)}"
    return str(message)


def own_words(message: m.Message) -> str:
    """A vote or promise on its way back from the node's own disk. What the promise covers is in the node's own log."""
    if isinstance(message, m.Promise):
        return f"Promise ballot {ballot_words(message.ballot)}"
    return message_words(message)


def write_words(write: Write) -> str:
    """What goes to disk."""
    if isinstance(write, WritePromise):
        return f"promise {ballot_words(write.ballot)}"
    if isinstance(write, WriteAccepted):
        return f"vote {ballot_words(write.ballot)} slot {write.slot}: {entry_words(write.entry)}"
    if isinstance(write, WriteDecided):
        return f"decided slot {write.slot}: {entry_words(write.entry)}"
    return f"mark: decided through {write.slot}"


def is_silent(write: Write) -> bool:
    """Marks are written behind everybody's back: nothing waits for them."""
    return isinstance(write, WriteDecidedThrough)
