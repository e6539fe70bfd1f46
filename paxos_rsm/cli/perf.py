"""``paxos-rsm check perf``: does a cluster bear a load of so many writes a second?

The loads, the sizes and the criteria are those of etcd's command: keys of 256 bytes, values of 1024, and at least nine
tenths of the writes done in the time, none in more than half a second, and a standard deviation of at most a tenth. The
work is done by the load processes of ``bench``, and so is the measuring: an open loop, in which each write has its time
and a stall counts for everything that it held up.
"""

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Any

import click

from paxos_rsm.cli.answers import print_fields
from paxos_rsm.cli.failures import EXIT_ERROR
from paxos_rsm.cli.options import DurationType, Settings, client_command, pass_settings
from paxos_rsm.cli.output import print_json, print_line, print_table

__all__ = ["LOADS", "Load", "judge", "perf"]

KEY_BYTES = 256
VALUE_BYTES = 1024
NUMBER_BYTES = 8  # the end of a key; see Job.key
SLOWEST_MS_MAX = 500.0
STDDEV_MS_MAX = 100.0
SHARE_MIN = 0.9
WARM_UP_S = 0.5

EPILOG = """\
\b
Examples:
  paxos-rsm check perf                            150 writes a second for a minute
  paxos-rsm check perf --load l --duration 10s
  paxos-rsm check perf --load m -w json

It writes below --prefix, where there should be nothing of yours, and deletes that at the end.
Exit codes: 0 PASS; 1 FAIL.
"""


@dataclass(frozen=True)
class Load:
    """What is asked of a cluster."""

    rate: int
    """Writes a second."""
    clients: int
    """Writes at once."""
    processes: int


LOADS = {
    "s": Load(150, 50, 1),
    "m": Load(1_000, 200, 1),
    "l": Load(8_000, 500, 2),
    "xl": Load(15_000, 1_000, 4),
}


def judge(result: dict[str, Any], load: Load) -> list[tuple[bool, str]]:
    """The criteria: whether each is met, and a sentence."""
    found = []
    rate = result["ops_per_s"]
    if rate >= load.rate * SHARE_MIN:
        found.append((True, f"Throughput is {rate:.0f} writes/s"))
    else:
        found.append((False, f"Throughput too low: {rate:.0f} writes/s of {load.rate}"))
    slowest, stddev = result["max_ms"], result["stddev_ms"]
    if slowest is None or slowest > SLOWEST_MS_MAX:
        found.append((False, f"Slowest request took too long: {(slowest or 0) / 1e3:f}s"))
    else:
        found.append((True, f"Slowest request took {slowest / 1e3:f}s"))
    if stddev is None or stddev > STDDEV_MS_MAX:
        found.append((False, f"Stddev too high: {(stddev or 0) / 1e3:f}s"))
    else:
        found.append((True, f"Stddev is {stddev / 1e3:f}s"))
    if result["errors"]:
        found.append((False, f"{result['errors']} requests failed; the first with {result['first_error']}"))
    return found


@client_command("perf", epilog=EPILOG)
@click.option(
    "--load",
    "name",
    type=click.Choice(list(LOADS)),
    default="s",
    show_default=True,
    help="How much: 150, 1000, 8000 or 15000 writes a second.",
)
@click.option(
    "--duration", "duration_s", type=DurationType(), default="60s", show_default=True, help="How long."
)
@click.option(
    "--prefix",
    default="/paxos-rsm-check-perf/",
    show_default=True,
    help="Of the keys that are written, and deleted.",
)
@pass_settings
@click.pass_context
def perf(ctx: click.Context, settings: Settings, name: str, duration_s: float, prefix: str) -> None:
    """Write at a steady rate, and say whether the cluster bears it."""
    from paxos_rsm.cli.bench import plan, run_bench

    load = LOADS[name]
    jobs = plan(
        settings,
        "write",
        in_flight=load.clients,
        clients=load.processes,
        keys=10_000,
        value_bytes=VALUE_BYTES,
        rate=load.rate,
        serializable=False,
    )
    # A run of its own, so that two at once do not delete each other's keys.
    own = f"{prefix}{secrets.token_hex(4)}/".ljust(KEY_BYTES - NUMBER_BYTES, "0")
    jobs = [replace(job, prefix=own) for job in jobs]
    result = asyncio.run(run_bench(jobs, warm_up_s=WARM_UP_S, duration_s=duration_s))
    verdicts = judge(result, load)
    passed = all(met for met, _ in verdicts)
    _print(settings, {"load": name, "duration_s": duration_s, **result}, verdicts, passed)
    ctx.exit(0 if passed else EXIT_ERROR)


def _print(
    settings: Settings, result: dict[str, Any], verdicts: list[tuple[bool, str]], passed: bool
) -> None:
    if settings.write_out == "json":
        checks = [{"pass": met, "text": text} for met, text in verdicts]
        print_json({**result, "checks": checks, "pass": passed})
    elif settings.write_out == "fields":
        print_fields({**result, "pass": passed})
    elif settings.write_out == "table":
        print_table(("check", "result"), [(text, _word(met)) for met, text in verdicts])
    else:
        for met, text in verdicts:
            print_line(f"{_word(met)}: {text}")
        shown = [
            f"{name.removesuffix('_ms')} {result[name]:.1f} ms"
            for name in result
            if _is_percentile(name, result)
        ]
        if shown:
            print_line(", ".join(shown))
        print_line(_word(passed))


def _is_percentile(name: str, result: dict[str, Any]) -> bool:
    return name.startswith("p") and name.endswith("_ms") and result[name] is not None


def _word(met: bool) -> str:
    return "PASS" if met else "FAIL"
