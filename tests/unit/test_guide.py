"""docs/GUIDE.md says what is so: its programs run, and what it shows of the example is in the example."""

import asyncio
import re
from pathlib import Path
from typing import Any

from paxos_rsm.testing.in_process import InProcessCluster

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "GUIDE.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
EXAMPLE = (ROOT / "examples" / "worker.py").read_text(encoding="utf-8")


def test_what_it_shows_of_the_example_is_there() -> None:
    _program, *parts = PYTHON
    assert len(parts) == 2
    for part in parts:
        assert part in EXAMPLE


async def test_its_program_runs(capsys: Any) -> None:
    program, *_ = PYTHON
    async with InProcessCluster(3) as cluster:
        source = program.replace("127.0.0.1:2379,127.0.0.1:2381,127.0.0.1:2383", ",".join(cluster.endpoints))
        source = source.replace("\nasyncio.run(main())\n", "\n")
        names: dict[str, Any] = {}
        exec(compile(source, "docs/GUIDE.md", "exec"), names)
        async with asyncio.timeout(60):
            await names["main"]()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "put b'config/colour' b'green'"
    assert second.startswith("held, with fencing token ")


def test_its_commands_are_commands() -> None:
    from paxos_rsm.cli.app import MODULES

    said = {line.split("paxos-rsm ", 1)[1].split()[0] for line in SHELL if "/paxos-rsm " in line}
    assert said >= {"cluster", "put", "get", "watch", "lease", "lock", "endpoint"}
    assert said <= set(MODULES)
