"""The world of a script that opens with ``nodes N``: protocol nodes, their disks and the wire.

Each method ``do_...`` is one command, with the rest of its line as argument.
"""

from collections.abc import Callable

from paxos_rsm.errors import InvariantViolation
from paxos_rsm.paxos.changes import AddMember, Change, PromoteMember, RemoveMember, UpdateMember
from paxos_rsm.paxos.membership import Member
from paxos_rsm.paxos.messages import Heartbeat
from paxos_rsm.paxos.settings import Settings
from tests.scripts.greetings import Greetings
from tests.scripts.handmade import parse_message
from tests.scripts.patterns import LINK, Pattern, meant, parse_ballot, parse_patterns
from tests.scripts.script import ScriptError
from tests.scripts.watched import Watched
from tests.scripts.words import ballot_words, members_words, message_words
from tests.unit.paxos.harness import SETTINGS

PATIENCE = 60


def options(text: str) -> tuple[list[str], dict[str, int]]:
    """Words, and ``name=number`` options."""
    words: list[str] = []
    given: dict[str, int] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals:
            given[name] = int(value)
        else:
            words.append(word)
    return words, given


class NodeWorld:
    """See the module's docstring."""

    def __init__(self, text: str) -> None:
        words, given = options(text)
        phase2 = given.pop("phase2", 0)
        settings = Settings(**{name: getattr(SETTINGS, name) for name in Settings.__slots__} | given)
        self.cluster = Watched(int(words[0]), settings, phase2, "apart" not in words)
        self.greetings = Greetings(self.cluster)
        self._seen: list[object] = []
        self._delayed: dict[str, list[tuple[int, int, object]]] = {}
        self._reads = 0

    def do(self, line: str) -> list[str]:
        """One command; what it showed."""
        cluster = self.cluster
        name, _, rest = line.partition(" ")
        quietly = name == "quietly"
        if quietly:
            name, _, rest = rest.partition(" ")
        command: Callable[[str], None] | None = getattr(self, f"do_{name.replace('-', '_')}", None)
        if command is None:
            raise ScriptError(f"there is no command {name!r}")
        cluster.lines = []
        command(rest.strip())
        return [] if quietly else cluster.lines

    def left(self) -> list[str]:
        """Messages that the block has left under way."""
        wire = self.cluster.wire
        new = [
            e for e in wire if not any(e is seen for seen in self._seen) and not isinstance(e[2], Heartbeat)
        ]
        self._seen = list(wire)
        return [f"{sender} -> {to} {message_words(message)} ... on its way" for sender, to, message in new]

    # ---- arguments ---------------------------------------------------------------------------------------------

    def _hosts(self, text: str) -> list[int]:
        return [int(word) for word in text.replace(",", " ").split()] or list(self.cluster.hosts)

    @staticmethod
    def _but(text: str) -> tuple[str, list[Pattern], list[Pattern]]:
        """``... but PATTERNS`` stay on the wire, ``... losing PATTERNS`` do not arrive."""
        keep: list[Pattern] = []
        lose: list[Pattern] = []
        text, losing, lost = text.partition("losing ")
        if losing:
            lose = parse_patterns(lost)
        text, but, kept = text.partition("but ")
        if but:
            keep = parse_patterns(kept)
        return text.strip(), keep, lose

    # ---- messages ----------------------------------------------------------------------------------------------

    def do_settle(self, rest: str) -> None:
        """Delivers until the wire is silent."""
        _, keep, lose = self._but(rest)
        self.cluster.calm_wire(keep, lose)

    def do_deliver(self, rest: str) -> None:
        """Delivers what is meant and is on the wire now, not what comes of it."""
        self._each(rest, lambda index: self.cluster.arrive(index))

    def do_drop(self, rest: str) -> None:
        """Loses what is meant."""
        self._each(rest, lambda index: self.cluster.lose_one(index, "dropped"))

    def _each(self, rest: str, do: Callable[[int], None]) -> None:
        patterns, wire = parse_patterns(rest), self.cluster.wire
        chosen = [entry for entry in wire if meant(patterns, *entry)]
        if not chosen:
            raise ScriptError(f"nothing on the wire is meant by {rest!r}")
        for entry in chosen:
            do(next(i for i, other in enumerate(wire) if other is entry))
            wire = self.cluster.wire

    def do_repeat(self, rest: str) -> None:
        """The network delivers what is meant once more, later."""
        patterns = parse_patterns(rest)
        copies = [(a, b, c) for a, b, c in self.cluster.wire if meant(patterns, a, b, c)]
        self.cluster.wire += copies

    def do_delay(self, rest: str) -> None:
        """``delay NAME PATTERNS``: takes what is meant off the wire until ``release NAME``."""
        name, _, text = rest.partition(" ")
        patterns = parse_patterns(text)
        self._delayed[name] = [e for e in self.cluster.wire if meant(patterns, *e)]
        self.cluster.wire = [e for e in self.cluster.wire if not meant(patterns, *e)]
        if not self._delayed[name]:
            raise ScriptError(f"nothing on the wire is meant by {text!r}")

    def do_release(self, rest: str) -> None:
        """What was delayed arrives."""
        for sender, to, message in self._delayed.pop(rest):
            self.cluster.hand(sender, to, message)  # type: ignore[arg-type]

    def do_inject(self, rest: str) -> None:
        """``inject 3->1 Accepted ballot=1.1 slots=2``: a hand-made message arrives."""
        link, *words = rest.split()
        found = LINK.fullmatch(link)
        if found is None:
            raise ScriptError(f"{link!r} is no link such as 1->2")
        self.cluster.hand(int(found[1]), int(found[2]), parse_message(words))

    def do_must_fail(self, rest: str) -> None:
        """A command that breaks an invariant: the server that meets it stops."""
        try:
            self.do_inject(rest.removeprefix("inject "))
        except InvariantViolation as error:
            self.cluster.indent = ""
            self.cluster.say(f"stops: {error}")
            return
        raise ScriptError("nothing was violated")

    # ---- links, disks, processes -------------------------------------------------------------------------------

    def do_cut(self, rest: str) -> None:
        """``cut 1|2,3``: all links between groups; ``cut 1->2``: one way."""
        if "->" in rest:
            self.cluster.cut |= {(int(a), int(b)) for a, b in LINK.findall(rest)}
        else:
            groups = [{int(n) for n in group.split(",")} for group in rest.split("|")]
            self.cluster.cut |= {(a, b) for g in groups for h in groups if g is not h for a in g for b in h}

    def do_links(self, rest: str) -> None:
        """``links 1-2 1-3``: only these stand."""
        self.cluster.only(*((int(a), int(b)) for a, b in (word.split("-") for word in rest.split())))

    def do_heal(self, rest: str) -> None:
        """All links stand."""
        self.cluster.heal()

    def do_broken(self, rest: str) -> None:
        """``broken 1->2 ...``: 1 sees that its stream to 2 has broken."""
        for a, b in LINK.findall(rest):
            self.cluster.node(int(a)).peer_down(int(b))

    def do_rejoined(self, rest: str) -> None:
        """``rejoined 1->2 ...``: 1 has a stream to 2 again."""
        for a, b in LINK.findall(rest):
            self.cluster.node(int(a)).peer_up(int(b))
            self.cluster.turn(int(a))

    def do_hold(self, rest: str) -> None:
        """What these hosts write stays in flight until ``sync``."""
        self.cluster.hold_writes |= set(self._hosts(rest))

    def do_sync(self, rest: str) -> None:
        """What these hosts have written so far is durable; later writes stay in flight."""
        for number in self._hosts(rest):
            self.cluster.sync(number)

    def do_unhold(self, rest: str) -> None:
        """These hosts' disks are quick again."""
        for number in self._hosts(rest):
            self.cluster.sync(number)
            self.cluster.hold_writes.discard(number)

    def do_crash(self, rest: str) -> None:
        """``crash 2 [N]``: of what is in flight to the disk, N records reach it."""
        words = rest.split()
        self.cluster.crash(int(words[0]), int(words[1]) if len(words) > 1 else 0)

    def do_restart(self, rest: str) -> None:
        """From what the disk holds."""
        for number in self._hosts(rest):
            self.cluster.say(f"{number} starts again; " + self.cluster.disk_lines(number)[0][2:])
            self.cluster.forget(number)
            self.cluster.restart(number)

    def do_hello(self, rest: str) -> None:
        """``hello 33 as 3 to 1 boots=1 [promised=1.1]``: 33 opens a stream to 1 in the name of member 3."""
        words = [word for word in rest.split() if "=" not in word]
        given = dict(word.split("=") for word in rest.split() if "=" in word)
        incarnation, member, to = int(words[0]), int(words[2]), int(words[4])
        promised = self.cluster.hosts[incarnation].disk.promised
        if "promised" in given:
            promised = parse_ballot(given["promised"])
        self.greetings.greet(incarnation, member, to, int(given["boots"]), promised)

    def do_wipe(self, rest: str) -> None:
        """``wipe 3 as 33``: the directory of 3 is emptied; what starts in its place is another incarnation."""
        old, _, new = rest.split()
        self.cluster.wipe(int(old), int(new))

    def do_pause(self, rest: str) -> None:
        """The process is stopped: no ticks, what is for it waits."""
        self.cluster.paused |= set(self._hosts(rest))

    def do_resume(self, rest: str) -> None:
        """The process goes on."""
        self.cluster.paused -= set(self._hosts(rest))

    # ---- time --------------------------------------------------------------------------------------------------

    def do_tick(self, rest: str) -> None:
        """``tick [hosts] [x5] [but|losing PATTERNS]``: time passes, everything else is delivered in between."""
        rest, keep, lose = self._but(rest)
        words = rest.split()
        times = next((int(word[1:]) for word in words if word.startswith("x")), 1)
        numbers = [int(word) for word in words if not word.startswith("x")]
        self.cluster.pass_time(times, keep, lose, numbers)

    def do_impatient(self, rest: str) -> None:
        """These hosts stand as soon as the protocol lets them."""
        self.cluster.impatient |= set(self._hosts(rest))

    def do_patient(self, rest: str) -> None:
        """These hosts do not stand of their own accord."""
        self.cluster.impatient -= set(self._hosts(rest))

    def do_stand(self, rest: str) -> None:
        """Time passes until this host stands; what it says then is on its way."""
        number, _, lose = self._but(rest)
        self.cluster.until_standing(int(number), PATIENCE, lose)

    def do_elect(self, rest: str) -> None:
        """This host stands, and comes to lead."""
        number = int(rest)
        self.do_stand(rest)
        self.cluster.calm_wire([], [])
        if not self.cluster.node(number).proposer.leading:
            raise ScriptError(f"{number} does not come to lead")

    def do_led_by(self, rest: str) -> None:
        """As ``elect``, in one line."""
        cluster = self.cluster
        self.do_elect(rest)
        cluster.pass_time(2, [], [], [])
        node = cluster.node(int(rest))
        ballot = ballot_words(node.proposer.ballot)
        cluster.lines = [f"{rest} leads ballot {ballot}; decided through {node.decided_through}"]

    def do_met(self, rest: str) -> None:
        """``met 1``: this host knows all the initial members."""
        for number in self._hosts(rest):
            self.cluster.node(number).meet(self.cluster.configuration)
            self.cluster.turn(number)

    # ---- clients -----------------------------------------------------------------------------------------------

    def do_propose(self, rest: str) -> None:
        """``propose 1 a b``: two frames at host 1, in one turn. ``a*100`` is a frame of 100 bytes."""
        number, *texts = rest.split()
        frames = [t[0].encode() * int(t[2:]) if t[1:2] == "*" else t.encode() for t in texts]
        taken = self.cluster.node(int(number)).propose(frames)
        if not taken:
            self.cluster.say(f"{number} takes no frame now")
        self.cluster.turn(int(number))

    def do_read(self, rest: str) -> None:
        """A linearizable read at this host; reads are numbered."""
        self._reads += 1
        self.cluster.say(f"read {self._reads} arrives at {rest}")
        self.cluster.read(int(rest), self._reads)

    # ---- members and leadership ----------------------------------------------------------------------------------

    def do_change(self, rest: str) -> None:
        """``change 1 7 add 4 [learner] | remove 3 | promote 4 | move 3``: host 1 is asked, under the number 7."""
        number, request_id, what, who, *more = rest.split()
        member_id = 100 + int(who)
        changes: dict[str, Change] = {
            "add": AddMember(
                Member(0, member_id, "", f"http://n{who}:2380", learner=True, promote="learner" not in more)
            ),
            "remove": RemoveMember(member_id),
            "promote": PromoteMember(member_id),
            "move": UpdateMember(member_id, f"http://elsewhere{who}:2380"),
        }
        self.cluster.change(int(number), int(request_id), changes[what])

    def do_start(self, rest: str) -> None:
        """``start 4 [as 3]``: a process with an empty directory, which says that it is that member."""
        number, _, who = rest.partition(" as ")
        self.cluster.add(int(number), 100 + int(who or number))

    def do_introduce(self, rest: str) -> None:
        """This host meets the processes that say they are members which have yet to join."""
        self.cluster.introduce(int(rest))

    def do_hand_over(self, rest: str) -> None:
        """``hand-over 1 [3]``: host 1 is to hand its leadership over."""
        number, *to = map(int, rest.split())
        heir = self.cluster.node(number).hand_over(*to)
        self.cluster.say(f"{number} hands over to {heir}" if heir else f"{number} cannot hand over")
        self.cluster.turn(number)

    def do_coup(self, rest: str) -> None:
        """This host stands at once, whatever the others think of it."""
        self.cluster.node(int(rest)).campaign()
        self.cluster.turn(int(rest))

    # ---- views -------------------------------------------------------------------------------------------------

    def do_status(self, rest: str) -> None:
        """One line a host."""
        self.cluster.lines += [self.cluster.status(number) for number in self._hosts(rest)]

    def do_log(self, rest: str) -> None:
        """What hosts hold in memory."""
        for number in self._hosts(rest):
            self.cluster.lines += self.cluster.log_lines(number)

    def do_disk(self, rest: str) -> None:
        """What is durable."""
        for number in self._hosts(rest):
            self.cluster.lines += self.cluster.disk_lines(number)

    def do_applied(self, rest: str) -> None:
        """The commands applied."""
        for number in [n for n in self._hosts(rest) if self.cluster.hosts[n].up]:
            self.cluster.lines.append(self.cluster.applied_line(self.cluster.hosts[number]))

    def do_wire(self, rest: str) -> None:
        """What is under way."""
        under_way = [e for e in self.cluster.wire if not isinstance(e[2], Heartbeat)]
        for sender, to, message in under_way:
            self.cluster.say(f"{sender} -> {to} {message_words(message)}")
        if not under_way:
            self.cluster.say("the wire is silent")

    def do_configuration(self, rest: str) -> None:
        """Who the members are, as far as hosts know."""
        for number in self._hosts(rest):
            configuration = self.cluster.node(number).configuration
            if configuration is None:
                self.cluster.say(f"{number} knows no configuration")
            else:
                sizes = configuration.quorum
                self.cluster.say(
                    f"{number} knows members {members_words(configuration)}; a quorum is "
                    f"{sizes.phase1} to elect, {sizes.phase2} to decide"
                )
