"""A real etcd on this machine: members on free ports of 127.0.0.1, in a temporary directory.

Every process is ended by its own handle; nothing is left when :meth:`RealEtcd.close` returns.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from paxos_rsm.testing.ports import PortHolder

__all__ = ["HOW_TO_INSTALL", "RealEtcd", "etcd_path", "etcdctl_path"]

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 15.0

HOW_TO_INSTALL = "on Debian and Ubuntu: apt-get install -y etcd-server etcd-client"


def etcd_path() -> str | None:
    """Where etcd is, or None. ``ETCD=path`` names another one than the first on the path."""
    return os.environ.get("ETCD") or shutil.which("etcd")


def etcdctl_path() -> str | None:
    """Where etcdctl is, or None. ``ETCDCTL=path`` names another one than the first on the path."""
    return os.environ.get("ETCDCTL") or shutil.which("etcdctl")


class RealEtcd:
    """A cluster of real etcd members, started by ``with`` and ended after it."""

    def __init__(self, size: int = 1, *flags: str) -> None:
        path = etcd_path()
        if path is None:
            raise RuntimeError(f"etcd is not installed; {HOW_TO_INSTALL}")
        self._ports = PortHolder()
        self._directory = Path(tempfile.mkdtemp(prefix="real-etcd-"))
        ports = self._ports.take(2 * size)
        self.endpoints = [f"{HOST}:{port}" for port in ports[:size]]
        peers = ",".join(f"e{n}=http://{HOST}:{port}" for n, port in enumerate(ports[size:], 1))
        self._commands = [
            [
                path,
                *("--name", f"e{n}"),
                *("--data-dir", str(self._directory / f"e{n}")),
                *("--listen-client-urls", f"http://{HOST}:{client}"),
                *("--advertise-client-urls", f"http://{HOST}:{client}"),
                *("--listen-peer-urls", f"http://{HOST}:{peer}"),
                *("--initial-advertise-peer-urls", f"http://{HOST}:{peer}"),
                *("--initial-cluster", peers),
                *flags,
            ]
            for n, (client, peer) in enumerate(zip(ports[:size], ports[size:], strict=True), 1)
        ]
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts every member, and waits until the first answers. Raises RuntimeError with the end of its log."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        for number, command in enumerate(self._commands, 1):
            with self._log(number).open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                    )
                )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(map(self._serves, range(1, len(self._commands) + 1))):
            ended = [each for each in self._processes if each.poll() is not None]
            if ended or time.monotonic() > deadline:
                tail = self._log(1).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"etcd did not start: {tail}")
            time.sleep(0.05)

    def _log(self, number: int) -> Path:
        return self._directory / f"e{number}.log"

    def _serves(self, number: int) -> bool:
        return b"ready to serve client requests" in self._log(number).read_bytes()

    def close(self) -> None:
        """Ends every member and removes what they wrote."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._ports.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
