"""``paxos-rsm demo`` ends by itself, with exit status 0."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

TIMEOUT_S = 90
"""Three times what it is to take: a busy machine is no failure."""


def test_demo(tell: Callable[[str], None]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAXOS_RSM_")}
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "paxos_rsm.cli", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        check=False,
    )
    tell(f"demo ended after {time.monotonic() - began:.1f} s")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing was lost" in ended.stdout
    assert "Traceback" not in ended.stderr
