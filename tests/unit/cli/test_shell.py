import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from paxos_rsm.cli import key_completion
from paxos_rsm.cli.app import cli
from paxos_rsm.cli.shell import Completer, default_history
from tests.unit.cli.fake_client import FakeClient
from tests.unit.cli.helpers import ROOT, command, own_environment, run

Client = type[FakeClient]


def test_lines_are_commands(client: Client) -> None:
    lines = b"put greeting 'hello, world'\n\n# a comment\nget greeting # and another\nexit\nput greeting no\n"
    result = run("shell", stdin=lines)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "OK\ngreeting\nhello, world\n", "")


def test_errors_do_not_end_it_and_the_last_code_is_its_own(client: Client) -> None:
    result = run("shell", stdin=b"gte x\nput 'a\nput k v\nget\n")
    assert (result.exit_code, result.stdout) == (128, "OK\n")
    errors = result.stderr.splitlines()
    assert [error.partition(":")[0] for error in errors] == ["Error"] * 3
    assert "No such command 'gte'" in errors[0]
    assert "no closing quotation: put 'a" in errors[1]
    assert run("shell", stdin=b"get\nput k v").exit_code == 0


def test_what_follows_txn_is_its_transaction(client: Client) -> None:
    result = run("shell", stdin=b"txn\n\nput k v\n\n\nget k\n")
    assert result.stdout == "SUCCESS\n\nOK\nk\nv\n"


def test_its_options_stand_before_each_line_which_may_say_otherwise(client: Client) -> None:
    line = ["shell", "--endpoints", "a:1,b:2", "--command-timeout", "250ms", "-w", "fields", "--hex"]
    result = run(*line, stdin=b"get k\nget k -w simple --endpoints c:3\n", env={"PAXOS_RSM_ENDPOINTS": "e:9"})
    assert result.exit_code == 0
    assert result.stdout.startswith('"ClusterID" : 11\n')
    clients = [arguments for what, arguments in client.calls if what == "client"]
    assert [each["endpoints"] for each in clients] == [("a:1", "b:2"), ("c:3",)]
    assert [each["timeout_s"] for each in clients] == [0.25, 0.25]


def test_help_and_a_shell_in_a_shell(client: Client) -> None:
    result = run("shell", stdin=b"help lease grant\nhelp\nshell\n")
    assert "Usage: paxos-rsm lease grant" in result.stdout
    assert "Keys and values:" in result.stdout
    assert (result.exit_code, result.stderr) == (1, "Error: this is a shell already\n")


def test_where_the_history_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_history() == tmp_path / "paxos-rsm" / "history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_history() == tmp_path / ".local" / "state" / "paxos-rsm" / "history"


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("le", ["lease "]),
        ("ex", ["exit "]),
        ("lease time", ["timetolive "]),
        ("help lease time", ["timetolive "]),
        ("get --pre", ["--prefix "]),
        ("get  --print", ["--print-value-only "]),
        ("get --consistency ", ["l ", "s "]),
        ("nonsense x", []),
    ],
)
def test_completes_commands_and_flags(line: str, completions: list[str]) -> None:
    assert Completer(cli, []).completions(line) == completions


def test_completes_keys_up_to_where_they_part(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_any(settings: object, method: str, request: object, answer_type: type) -> object:
        answer = answer_type()
        for key in (b"app/x", b"app/y", b"apple", b"two words"):
            answer.kvs.add(key=key)
        return answer

    monkeypatch.setattr(key_completion, "ask_any", ask_any)
    completer = Completer(cli, ["--endpoints", "a:1"])
    assert completer.completions("get --prefix a") == ["app/", "apple "]
    assert completer.completions("put app/") == ["app/x ", "app/y ", "apple "]
    assert completer.completions("put key a") == []  # its value


class Terminal:
    """A shell at a terminal."""

    def __init__(self, *line: str, state: Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = own_environment(TERM="dumb", XDG_STATE_HOME=str(state), INPUTRC="/dev/null")
        self.process = subprocess.Popen(
            command("shell", *line),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def interrupt_until(self, text: bytes) -> None:
        """Interrupts it, once more where that is lost: readline does not look for a signal right after a key."""
        for _ in range(10):
            os.kill(self.process.pid, signal.SIGINT)
            with suppress(AssertionError):
                self.until(text, 5)
                return
        raise AssertionError(self._seen)

    def until(self, text: bytes, timeout_s: float = 60) -> bytes:
        """What has been shown since the last call, up to ``text``."""
        deadline = time.monotonic() + timeout_s
        while text not in self._seen:
            ready = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, self._seen
            try:
                self._seen += os.read(self._ours, 4096)
            except OSError:  # nobody is at the other end any more
                raise AssertionError(self._seen) from None
        shown, _, self._seen = self._seen.partition(text)
        return shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal("--endpoints", "127.0.0.1:1", "--dial-timeout", "10ms", state=tmp_path)
    yield found
    found.close()


def test_at_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until(b"paxos-rsm> ")
    terminal.type(b"get nothing\n")
    assert b"Error: no server could be reached" in terminal.until(b"paxos-rsm> ")
    terminal.type(b" put secret x\n")
    terminal.until(b"paxos-rsm> ")
    terminal.type(b"half a line")
    terminal.until(b"half a line")
    terminal.interrupt_until(b"paxos-rsm> ")
    terminal.type(b"completion b\t\n")
    assert b"bash" in terminal.until(b"paxos-rsm> ")
    terminal.type(b"\x04")
    assert terminal.process.wait(60) == 0
    history = tmp_path / "paxos-rsm" / "history"
    assert [line.rstrip() for line in history.read_text().splitlines()] == ["get nothing", "completion bash"]
    assert history.stat().st_mode & 0o777 == 0o600


def test_without_a_history(tmp_path: Path) -> None:
    terminal = Terminal("--no-history", state=tmp_path)
    try:
        terminal.until(b"paxos-rsm> ")
        terminal.type(b"help get\nexit\n")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    assert not list(tmp_path.iterdir())
