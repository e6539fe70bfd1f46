"""Stands in for ``paxos-rsm server``: takes its flags, answers Status, ends on SIGTERM. A process of its own.

Environment: FAKE_LEADER names the server that says it leads (n1 by default; empty for none), FAKE_EXIT ends at once
with that code, FAKE_DEAF ignores SIGTERM.
"""

import os
import signal
import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc

from paxos_rsm._proto import admin_pb2, admin_pb2_grpc, paxos_pb2


def flag(name: str) -> str:
    return sys.argv[sys.argv.index(f"--{name}") + 1]


class Admin(admin_pb2_grpc.AdminServicer):
    def TakeSnapshot(
        self, request: admin_pb2.TakeSnapshotRequest, context: object
    ) -> admin_pb2.TakeSnapshotResponse:
        raise NotImplementedError

    def Status(self, request: admin_pb2.StatusRequest, context: object) -> admin_pb2.StatusResponse:
        leader = os.environ.get("FAKE_LEADER", "n1")
        own = flag("name")
        return admin_pb2.StatusResponse(
            name=own,
            member_id=int(own[1:]),
            role="leader" if own == leader else "follower",
            leader=leader,
            ballot=paxos_pb2.Ballot(round=7, node=1),
            applied_slot=12,
            digest=b"\x00\xff" if request.digest else b"",
        )


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def end_with_stdin(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


def main() -> None:
    say("flags", *sys.argv[1:])
    say("greeting", os.environ.get("GREETING", "none"))
    if "FAKE_EXIT" in os.environ:
        say("cannot start: told so")
        sys.exit(int(os.environ["FAKE_EXIT"]))
    Path(flag("data-dir")).mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    if "FAKE_DEAF" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    admin_pb2_grpc.add_AdminServicer_to_server(Admin(), server)
    server.add_insecure_port(flag("listen-client-urls").removeprefix("http://"))
    server.start()
    threading.Thread(target=end_with_stdin, args=(ended,), daemon=True).start()
    while not ended.wait(0.05):  # a signal that another thread takes does not wake this one
        pass
    server.stop(0)
    say("ended in order")


if __name__ == "__main__":
    main()
