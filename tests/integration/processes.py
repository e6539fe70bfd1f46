"""Single servers as a user would start them: for those that are expected to end with a sentence."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from paxos_rsm.testing.cluster import LocalServer

__all__ = ["Ended", "check_one_sentence", "ended_server", "flags_with", "run_server"]

TIMEOUT_S = 60.0


class Ended(NamedTuple):
    """How a process has ended, and what it wrote to stderr."""

    code: int
    stderr: str

    @property
    def sentence(self) -> str:
        """What stands behind ``Error:`` on the last line. Fails where that is not how it ended."""
        last = self.stderr.strip().splitlines()[-1]
        assert last.startswith("Error: "), self.stderr
        return last.removeprefix("Error: ")


def check_one_sentence(ended: Ended) -> str:
    """It failed, with one readable sentence on stderr and no traceback. Gives the sentence."""
    assert ended.code not in (0, None), f"exit status {ended.code}:\n{ended.stderr}"
    assert ended.code > 0, f"it was ended by a signal, {-ended.code}:\n{ended.stderr}"
    assert "Traceback" not in ended.stderr, ended.stderr
    sentences = re.findall(r"^Error: .*$", ended.stderr, re.MULTILINE)
    assert len(sentences) == 1, ended.stderr
    sentence = ended.sentence
    assert "bug" not in sentence, sentence
    assert len(sentence.split()) >= 5, sentence
    return sentence


def run_server(flags: Sequence[str]) -> Ended:
    """Starts a server that is expected to end by itself, and waits until it has."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAXOS_RSM_")}
    ended = subprocess.run(
        [sys.executable, "-m", "paxos_rsm.cli", "server", *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        check=False,
    )
    return Ended(ended.returncode, ended.stderr)


def ended_server(server: LocalServer, log_before: str = "") -> Ended:
    """Waits until a server of a LocalCluster has ended by itself; what it wrote since ``log_before``."""
    code = server.wait(TIMEOUT_S)
    return Ended(code, server.log().removeprefix(log_before))


def flags_with(server: LocalServer, **changed: str) -> list[str]:
    """The flags of a server, some of them given otherwise: ``data_dir="..."``."""
    flags = server.command_line()
    for name, value in changed.items():
        flag = "--" + name.replace("_", "-")
        if flag in flags:
            flags[flags.index(flag) + 1] = value
        else:
            flags += [flag, value]
    return flags
