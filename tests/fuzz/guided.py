"""The same targets, searched by atheris: libFuzzer, guided by which branches of paxos_rsm an input reaches.

Atheris is no dependency of this project: ``pip install atheris`` into an environment of one's own, then
``python -m tests.fuzz --engine atheris --target peer-message --seconds 600``. Each target has a process of its own,
since libFuzzer ends the one it runs in. Half of the mutations are libFuzzer's, half are ours, which know fields.
"""

import importlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["main", "search"]

INPUT_BYTES_MAX = 4_096
REAL_INPUTS = 200
MISSING = "the engine atheris is not installed here; install it with pip, or use the other engine\n"


def search(names: list[str], seed: int, seconds: int, save: Path) -> int:
    """Searches each target for so long. Returns 1 where one failed, 2 where atheris is missing."""
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write(MISSING)
        return 2
    save.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.guided",
            name,
            str(seed),
            str(seconds),
            f"{save}/{name}-",
        ]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    for name in failed:
        sys.stdout.write(
            f"FAILED {name}; again: python -m tests.fuzz --target {name} --input {save}/{name}-...\n"
        )
    return 1 if failed else 0


def main(name: str, seed: str, seconds: str, prefix: str) -> None:
    """Searches one target until it fails or time is up. Does not return."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["paxos_rsm"]):
        from tests.fuzz.runner import check, mutant
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    rng = Random(seed)
    real = [target.make(rng)[1] for _ in range(REAL_INPUTS)]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        drawn = Random(seed)
        if drawn.random() < 0.5:
            changed = mutant(drawn, target, data, drawn.choice(real))
        else:
            changed = atheris.Mutate(data, most)
        return changed[:most]

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(real):
            Path(corpus, str(number)).write_bytes(data)
        arguments = [name, f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={prefix}"]
        arguments += [
            f"-max_len={INPUT_BYTES_MAX}",
            "-rss_limit_mb=2048",
            "-timeout=20",
            "-print_final_stats=1",
            corpus,
        ]
        atheris.Setup(arguments, lambda data: check(target, data), custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
