"""Every decoder of paxos_rsm, fed with what nobody should send it.

A *target* (target.py) is one way in from outside: bytes of the wire, of the disk, of a snapshot, of a setting. It
makes real inputs, says which errors it may answer with, and decodes: what comes out is a value or one of those errors,
and anything else is a bug. The targets themselves stand in targets_*.py; ``targets.TARGETS`` is the list.

Inputs are made from real ones by mutation (mutate.py): of bytes, and of protobuf fields, so that most get past the
parser. Where a checksum would stop every mutation, the target mends it for half of them.

Three ways to run them:

- ``python -m tests.fuzz --inputs 1000000`` (``make fuzz``): seeded, on every core, with a table of what was found;
- test_fuzz.py, a slice of the same and hypothesis' search over the same edits, in ``make test``;
- ``python -m tests.fuzz --engine atheris``: guided by coverage, where atheris is installed (it is no dependency).

test_complete.py fails when a decoder is written that no target feeds.
"""
