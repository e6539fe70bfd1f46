"""What protoc makes of protos/paxos_rsm/v1/: messages, service stubs and their types. Never edited by hand.

`make gen` writes the modules (tools/gen_protos.py), `make check-gen` fails where they differ from what the
protos say. They are committed, so that neither a user nor a wheel build needs protoc.

    from paxos_rsm._proto import paxos_pb2, paxos_pb2_grpc

The files live flat in this package, while the descriptor pool knows them by their proto path
(`paxos_rsm/v1/paxos.proto`, package `paxos_rsm.v1`): the name on the wire does not depend on where Python
keeps its modules. The pure floors (`paxos`, `machines`) never import from here.
"""
