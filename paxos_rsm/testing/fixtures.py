"""What the fixture ``paxos_cluster`` gives: a LocalCluster that makes clients, ends them, and shows its logs."""

from typing import Any

from paxos_rsm.client import Client
from paxos_rsm.testing.cluster import LocalCluster

__all__ = ["PaxosCluster"]

LOG_TAIL_LINES = 30


class PaxosCluster(LocalCluster):
    """Server processes, and the clients that a test has of them: all of it ends with :meth:`close`."""

    _clients: tuple[Client, ...] = ()

    def client(self, **options: Any) -> Client:
        """A blocking client of all servers; ``options`` are those of Client."""
        client = Client(self.endpoints, **options)
        self._clients = (*self._clients, client)
        return client

    def log_ends(self) -> str:
        """The last lines of every server, and how it ended: for a test that failed."""
        told = []
        for server in self:
            lines = "\n".join(server.log().splitlines()[-LOG_TAIL_LINES:])
            told.append(f"---- the log of {server.name}, which {server.describe_end()}, ends\n{lines}\n")
        return "".join(told)

    def close(self) -> None:
        """Closes the clients, kills what still runs."""
        clients, self._clients = self._clients, ()
        for client in clients:
            client.close()
        super().close()
