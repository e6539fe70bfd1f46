"""The Hello that opens every stream between servers: who may speak to whom (rule 9)."""

from dataclasses import replace

from paxos_rsm.paxos.types import Ballot
from paxos_rsm.transport.handshake import Hello, PeerBook, check_hello
from tests.scripts.watched import Watched
from tests.scripts.words import ballot_words


class Greetings:
    """What each host of a cluster remembers of the others' Hellos."""

    def __init__(self, cluster: Watched) -> None:
        self._cluster = cluster
        self._books: dict[int, PeerBook] = {}
        self._processes = 0

    def _hello(self, incarnation: int, member: int, boots: int, promised: Ballot) -> Hello:
        configuration = self._cluster.configuration
        person = next(m for m in configuration.members if m.member_id == 100 + member)
        formed = self._cluster.node(incarnation).configuration is not None
        person = replace(person, incarnation=incarnation)
        return Hello(configuration.cluster_id, person, boots, promised, formed, process=self._processes)

    def greet(self, incarnation: int, member: int, to: int, boots: int, promised: Ballot) -> None:
        """``incarnation`` says Hello to ``to`` in the name of ``member``."""
        self._processes += 1  # every Hello of a script is said by another process
        cluster, mine = self._cluster, self._cluster.node(to)
        book = self._books.setdefault(to, PeerBook({m.member_id for m in cluster.configuration.members}))
        if mine.configuration is not None and not book.formed:
            book.form(mine.configuration)
        theirs = self._hello(incarnation, member, boots, promised)
        cluster.say(
            f"{incarnation} -> {to} Hello, I am n{member}, incarnation {incarnation}, started {boots} times, "
            f"promised {ballot_words(promised)}"
        )
        refusal = check_hello(self._hello(to, to, 1, mine.acceptor.promised), theirs, book)
        if refusal is None:
            book.hear(theirs)
            cluster.say(f"  {to} will speak with it")
        else:
            cluster.say(f"  {to} refuses: {refusal.message}")
            cluster.say(f"  {incarnation} {'must stop' if refusal.fatal else 'may ask again'}")
