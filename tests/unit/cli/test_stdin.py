import os
import subprocess
import sys
from pathlib import Path

import pytest

from paxos_rsm.cli.stdin import text_lines
from tests.unit.cli.helpers import ROOT, own_environment

ECHO = """
import asyncio
from paxos_rsm.cli.stdin import arriving_lines
async def main():
    async for line in arriving_lines():
        print(ascii(line), flush=True)
asyncio.run(main())
"""


def process(stdin: int) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-c", ECHO]
    return subprocess.Popen(line, stdin=stdin, stdout=subprocess.PIPE, cwd=ROOT, env=own_environment())


def test_lines_arrive_one_by_one() -> None:
    with process(subprocess.PIPE) as echo:
        assert echo.stdin is not None
        assert echo.stdout is not None
        for line, shown in ((b"one\r\n", b"'one'\n"), (b"\xff\n", b"'\\udcff'\n"), (b"\n", b"''\n")):
            echo.stdin.write(line)
            echo.stdin.flush()
            assert echo.stdout.readline() == shown
        echo.stdin.write(b"the last, without a line break")
        echo.stdin.close()
        assert echo.stdout.read() == b"'the last, without a line break'\n"
        assert echo.wait(60) == 0


def test_a_file_is_standard_input_too(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\nb\n")
    descriptor = os.open(tmp_path / "lines", os.O_RDONLY)
    with process(descriptor) as echo:
        os.close(descriptor)
        assert echo.communicate(timeout=60)[0] == b"'a'\n'b'\n"


def test_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\r\n\xffb\n\nc")
    with (tmp_path / "lines").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert list(text_lines()) == ["a", "\udcffb", "", "c"]
