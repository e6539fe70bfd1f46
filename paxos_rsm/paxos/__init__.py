"""The protocol, pure: no clock, no socket, no disk, no randomness but what it is given.

Step and tick go in; one :class:`~paxos_rsm.paxos.ready.Ready` comes out. Read ``node.py`` first, then one noun a
file: acceptor, proposer, learner, log, quorum, election, reads, membership. The rules that always hold are in
docs/PROTOCOL.md and stand on the types that they bind.
"""
