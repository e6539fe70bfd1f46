import pytest

from tests.unit.cli.helpers import run, spawn


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_asks_the_command_what_comes_next(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_PAXOS_RSM_COMPLETE={shell}_complete" in result.stdout


def test_the_command_answers_what_the_script_asks() -> None:
    asked = spawn(_PAXOS_RSM_COMPLETE="bash_complete", COMP_WORDS="paxos-rsm c", COMP_CWORD="1")
    words = {line.partition(",")[2] for line in asked.stdout.decode().splitlines()}
    assert words == {"cas", "chaos", "check", "cluster", "compaction", "completion"}
