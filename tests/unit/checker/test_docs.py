"""The examples of docs/LINEARIZABILITY.md are run, top to bottom, in an empty directory."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from paxos_rsm.checker.history import operation_from_json
from paxos_rsm.cli.app import cli

PAGE = Path(__file__).resolve().parents[3] / "docs" / "LINEARIZABILITY.md"


def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "json", "console", "python", "python"]
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif language == "json":
            document = json.loads(text)
            assert operation_from_json(document) in names["recorder"].operations
        else:
            command, output = text.removeprefix("$ paxos-rsm ").split("\n", 1)
            result = CliRunner().invoke(cli, command.split(), prog_name="paxos-rsm")
            assert result.exit_code == 1
            assert result.stdout.startswith(output)
    assert (tmp_path / "greeting.html").exists()
    assert "fits nowhere" in names["page"]
