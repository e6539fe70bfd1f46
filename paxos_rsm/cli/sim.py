"""``paxos-rsm sim``: plays seeds of the deterministic simulator, and makes a failing one small.

A campaign plays many seeds on every core and says what broke, how much was played, and which faults and branches of
the protocol never came; with enough seeds, one that never came is a failure too. ``--seed`` plays a single one, which
can be told (``--trace``), made smaller (``--minimize``) and kept as a test (``--pin``).
"""

import os
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paxos_rsm._version import __version__
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import SectionCommand, Settings, global_options, pass_settings
from paxos_rsm.cli.output import print_json, print_line, print_table
from paxos_rsm.cli.ranges import WholeRange
from paxos_rsm.sim.campaign import COUNTED_EVERY, Campaign, play_campaign
from paxos_rsm.sim.coverage import REQUIRED
from paxos_rsm.sim.minimize import Pinned, minimize, pin
from paxos_rsm.sim.world import ELECTION_TICKS

__all__ = ["COMMANDS", "sim"]

EPILOG = """\
\b
Examples:
  paxos-rsm sim                                   200 seeds of 5,000 events, on every core
  paxos-rsm sim --seeds 2000                      and no fault, no branch of the protocol left out
  paxos-rsm sim --seed 4711 --trace               who said what to whom
  paxos-rsm sim --seed 4711 --minimize --pin      the shortest run found that fails, kept as a test
  paxos-rsm sim --seeds 500 --set servers=5 --set crash=0.05 --set loss=0.2

A seed plays alike on every machine: the hash that is printed is that of everything that happened in it.
"""

COVERAGE_SEEDS_MIN = 2000
"""A campaign of so many seeds is expected to reach everything, unless it is told otherwise."""
TRACE_LINE_MAX = 240


class ChangeType(click.ParamType[tuple[str, Any]]):
    """``name=value``: a number, or ``true`` or ``false``."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).partition("=")
        known = {"true": True, "false": False}
        try:
            return name.strip(), known[text] if text in known else float(text) if "." in text else int(text)
        except ValueError:
            self.fail(f"{value!r} is not name=value with a number, true or false", param, ctx)


@click.command(cls=SectionCommand, epilog=EPILOG)
@click.option(
    "--seeds", type=WholeRange(1), default=200, show_default=True, metavar="N", help="How many to play."
)
@click.option(
    "--first", type=WholeRange(0), default=1, show_default=True, metavar="N", help="The first of them."
)
@click.option(
    "--events",
    type=WholeRange(1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Events in each, at least; the last few hundred are the healing.",
)
@click.option(
    "--jobs",
    type=WholeRange(1),
    default=lambda: os.cpu_count() or 1,
    show_default="one a core",
    metavar="N",
    help="Processes to play in.",
)
@click.option(
    "--set",
    "changes",
    type=ChangeType(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Instead of what each seed draws: a field of the world, or the rate of a fault.",
)
@click.option(
    "--coverage/--no-coverage",
    default=None,
    help="Fail where a fault or branch never came; or do not even count.  "
    f"[default: fail with {COVERAGE_SEEDS_MIN} seeds or more]",
)
@click.option("--seed", type=WholeRange(0), metavar="N", help="Play this one only.")
@click.option("--trace", is_flag=True, help="--seed: print everything that happened.")
@click.option("--minimize", "small", is_flag=True, help="--seed: look for a smaller run that fails alike.")
@click.option("--pin", "keep", is_flag=True, help="--seed: keep the run as a file that a test plays.")
@click.option(
    "--pin-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("tests/sim/pinned"),
    show_default=True,
    metavar="DIR",
    help="Where --pin keeps it.",
)
@global_options()
@pass_settings
def sim(
    settings: Settings,
    seeds: int,
    first: int,
    events: int,
    jobs: int,
    changes: tuple[tuple[str, Any], ...],
    coverage: bool | None,
    seed: int | None,
    trace: bool,
    small: bool,
    keep: bool,
    pin_dir: Path,
) -> None:
    """Play seeds of the simulator: the real code under every fault."""
    if seed is None and (trace or small or keep):
        raise click.UsageError("--trace, --minimize and --pin are for one run: give its --seed")
    if seed is not None:
        _play_one(seed, events, dict(changes), trace=trace, small=small, keep_in=pin_dir if keep else None)
        return
    began = time.monotonic()
    counted_every = 0 if coverage is False else COUNTED_EVERY
    campaign = _play_many(first, seeds, events, jobs, dict(changes), counted_every)
    if coverage is None:
        coverage = seeds >= COVERAGE_SEEDS_MIN
    _print_campaign(settings.write_out, campaign, time.monotonic() - began, covered=coverage)
    if campaign.failures:
        worst = campaign.failures[0][0]
        raise Failure(
            f"{len(campaign.failures)} of {campaign.seeds} seeds failed; look at one with "
            f"`paxos-rsm sim --events {events} --seed {worst} --minimize --trace`"
        )
    if coverage and campaign.unreached:
        raise Failure(
            f"{len(campaign.unreached)} faults or branches never came in {campaign.seeds} seeds: play more, or mend "
            "the simulator"
        )


def _play_many(
    first: int, seeds: int, events: int, jobs: int, changes: dict[str, Any], counted_every: int
) -> Campaign:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("seeds", total=seeds)
        return play_campaign(
            first,
            seeds,
            events,
            jobs=jobs,
            changes=changes,
            counted_every=counted_every,
            progress=lambda campaign: progress.update(
                task,
                completed=campaign.seeds,
                description=f"seeds ({campaign.events:,} events, {len(campaign.failures)} failed)",
            ),
        )


def _print_campaign(write_out: str | None, campaign: Campaign, wall_s: float, *, covered: bool) -> None:
    if write_out == "json":
        print_json(
            {
                "version": __version__,
                "seeds": campaign.seeds,
                "events": campaign.events,
                "events_per_s_and_core": round(campaign.events_per_s),
                "wall_s": round(wall_s, 1),
                "healed_in_ticks": dict(sorted(campaign.healed_in_ticks.items())),
                "failures": [{"seed": seed, "failure": str(failure)} for seed, failure in campaign.failures],
                "unreached": campaign.unreached,
                "fired": dict(sorted(campaign.fired.items())),
                "branches": dict(campaign.branches),
            }
        )
        return
    rows = [
        (name, f"{count:,}") for name, count in sorted(campaign.fired.items()) if name in REQUIRED or count
    ]
    print_table(("what happened", "times"), rows, right=("times",))
    reached = sum(1 for hits in campaign.branches.values() if hits)
    print_line(
        f"{campaign.seeds:,} seeds, {campaign.events:,} events in {wall_s:,.0f} s, "
        f"{campaign.events_per_s:,.0f} events a second and core; "
        f"{reached} of {len(campaign.branches)} branches of the protocol reached"
    )
    if campaign.healed_in_ticks:
        longest = max(campaign.healed_in_ticks)
        print_line(
            f"whole again at most {longest} ticks ({longest / ELECTION_TICKS:.1f} election time-outs) after the faults"
        )
    if covered:
        for name in campaign.unreached:
            print_line(f"never came: {name}")
    for seed, failure in campaign.failures:
        print_line(f"seed {seed}: {failure}")
    if not campaign.failures:
        print_line("every seed is green")


def _play_one(
    seed: int, events: int, changes: dict[str, Any], *, trace: bool, small: bool, keep_in: Path | None
) -> None:
    pinned = Pinned(seed, events, changes)
    if small:
        found = minimize(pinned, progress=_tell_progress)
        if found is None:
            nothing = (
                "nothing to make smaller"
                if keep_in is None
                else "nothing to make smaller, and nothing was kept"
            )
            print_line(f"seed {seed} is green with {events:,} events: there is {nothing}")
            return
        pinned = found
    result = pinned.run(traced=trace)
    for line in result.trace:
        print_line(line if len(line) <= TRACE_LINE_MAX else f"{line[: TRACE_LINE_MAX - 1]}…")
    changed = "".join(f" --set {name}={value}" for name, value in pinned.changes.items())
    print_line(f"paxos-rsm {__version__}, sim --seed {seed} --events {pinned.events}{changed}".lower())
    print_line(f"{result.events:,} events, trace hash {result.trace_hash}")
    if result.failure is None:
        print_line("green" if keep_in is None else "green: nothing was kept, for --pin keeps runs that fail")
        return
    if keep_in is not None:
        print_line(f"kept as {pin(keep_in, pinned, result.failure)}")
    raise Failure(f"seed {seed}: {result.failure}")


def _tell_progress(runs: int, best: Pinned) -> None:
    without = len(best.changes)
    click.echo(f"run {runs}: still fails with {best.events} events, {without} things taken away", err=True)


COMMANDS = {"sim": sim}
