"""``paxos-rsm chaos``: real servers are broken on a schedule, and every answer they give is checked.

The work is done in `paxos_rsm.testing.chaos`; here are the options, a progress bar, and the figures in the terminal.
"""

import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.table import Table

from paxos_rsm.cli.cluster import EndedBySignal, signals_end_it
from paxos_rsm.cli.failures import Failure
from paxos_rsm.cli.options import SectionCommand, global_options
from paxos_rsm.cli.output import print_json, print_line, print_table
from paxos_rsm.cli.ranges import FiniteRange, WholeRange
from paxos_rsm.testing.chaos import ChaosSettings, Plan, RunResult, draw_plan, missing_needs, run_chaos
from paxos_rsm.testing.chaos import Progress as Step
from paxos_rsm.testing.chaos.charts import nice_steps
from paxos_rsm.testing.chaos.gaps import KindFigures, percentile
from paxos_rsm.testing.chaos.kinds import KINDS, NEEDS
from paxos_rsm.testing.chaos.plan import SERVERS
from paxos_rsm.testing.chaos.report import goal_text
from paxos_rsm.testing.chaos.workload import Rates
from paxos_rsm.testing.cluster import LocalClusterError

__all__ = ["COMMANDS", "chaos", "repeat_command"]

EPILOG = f"""\
\b
Examples:
  paxos-rsm chaos                                 five servers, five minutes, every fault once at least
  paxos-rsm chaos --seed 7 --plan                 what that seed means, without running it
  paxos-rsm chaos --only leader-kill --times 50   how long writes stand still when a leader dies
  paxos-rsm chaos --minutes 60 --out night

Faults: {", ".join(KINDS)}.

Exit codes: 0 linearizable, nothing lost; 1 a violation; 4 unknown, or a fault that this machine cannot do (see
--allow-missing); 5 interrupted; 128 bad usage. Read docs/CHAOS.md for what the report says.
"""

STYLES = {"ok": "bold green", "violation": "bold red", "unknown": "bold yellow", "incomplete": "bold yellow"}
MARKS = {"ok": "[green]✓[/]", "violation": "[red]✗[/]", "unknown": "[yellow]?[/]"}
SEED_BITS = 31
DISTRIBUTION_FROM = 10
"""Occurrences of one kind from which three figures do not say enough."""
DISTRIBUTION_BARS = 12
MINUTES_MAX = 24 * 60
TIMES_MAX = 10_000
USUAL_RATE_S = 900.0
PROBES_SHARE_MIN = 0.4


def repeat_command(
    seed: int, minutes: float, servers: int, only: tuple[str, ...], times: int | None, rate: float | None
) -> str:
    """The command line that draws the same plan."""
    words = ["paxos-rsm chaos", f"--seed {seed}", f"--servers {servers}"]
    words += [f"--only {kind}" for kind in only]
    words.append(f"--minutes {minutes:g}" if times is None else f"--times {times}")
    if rate is not None:
        words.append(f"--rate {rate:g}")
    return " ".join(words)


def rates_of(rate: float | None, seconds: float) -> Rates:
    """The mix of work at a pace of ``rate`` operations a second, besides the probes; None: the usual one.

    A run of more than a quarter of an hour has, by itself, no more work than that: servers read their whole log when
    they start, and are to start often. The probes, by which gaps are measured, are thinned out less.
    """
    usual = Rates()
    share = min(1.0, USUAL_RATE_S / seconds)
    factor = share if rate is None else rate / (usual.keys + usual.transactions + usual.counter + usual.once)
    return Rates(
        usual.keys * factor,
        usual.transactions * factor,
        usual.counter * factor,
        usual.once * factor,
        usual.probes * max(share, PROBES_SHARE_MIN),
    )


@click.command("chaos", cls=SectionCommand, epilog=EPILOG)
@click.option("--seed", type=WholeRange(0), metavar="N", help="Draws the plan. [default: a random one]")
@click.option(
    "--minutes",
    type=FiniteRange(0, MINUTES_MAX, min_open=True),
    metavar="M",
    default=5.0,
    show_default=True,
    help=f"How long to break things; {MINUTES_MAX} (a day) at most.",
)
@click.option(
    "--servers",
    type=click.Choice([str(size) for size in SERVERS]),
    default="5",
    show_default=True,
    help="How many servers.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of report, history and logs. [default: chaos-SEED]",
)
@click.option("--only", multiple=True, metavar="FAULT", help="This fault and no other; may be given again.")
@click.option(
    "--times",
    type=WholeRange(1, TIMES_MAX),
    metavar="N",
    help="Each fault so often, however long it takes.",
)
@click.option(
    "--rate",
    type=FiniteRange(10, 20_000),
    metavar="N",
    help="Operations a second, besides the probes. [default: 310; less where a run is longer than 15 minutes]",
)
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be done, and when; do nothing.")
@click.option(
    "--allow-missing", is_flag=True, help="Exit 0 where this machine lacks what some faults need (root, cc)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@global_options(connects=False)
@click.pass_context
def chaos(
    ctx: click.Context,
    seed: int | None,
    minutes: float,
    servers: str,
    out: Path | None,
    only: tuple[str, ...],
    times: int | None,
    rate: float | None,
    plan_only: bool,
    allow_missing: bool,
    as_json: bool,
) -> None:
    """Break real servers on a schedule and check every answer.

    Kills, stops, cuts links, fills disks and fails syncs of local servers, while clients write and read through all of
    them; then checks that what they were answered is linearizable, that nothing acknowledged was lost and nothing
    executed twice, and measures how long writes stood still. Ends with a report in HTML.
    """
    if seed is None:
        seed = secrets.randbits(SEED_BITS)
    plan = draw_plan(seed, servers=int(servers), minutes=minutes, only=only, times=times)
    if plan_only:
        _print_plan(plan, as_json)
        return
    missing = missing_needs()
    settings = ChaosSettings(
        plan,
        out or Path(f"chaos-{seed}"),
        repeat_command(seed, minutes, plan.servers, only, times, rate),
        rates=rates_of(rate, plan.seconds),
        allow_missing=allow_missing,
        missing=missing,
    )
    console = Console(stderr=True, highlight=False)
    _print_beginning(console, settings)
    try:
        with signals_end_it(), _bar(console) as tell:
            result = run_chaos(settings, tell)
    except EndedBySignal:
        raise click.Abort from None
    except LocalClusterError as error:
        raise Failure(f"{error.headline}; the servers' logs are in {settings.out}") from error
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(Console(highlight=False), result)
    ctx.exit(result.exit_status)


def _print_plan(plan: Plan, as_json: bool) -> None:
    rows = [
        {
            "number": fault.number,
            "at_s": fault.start_s,
            "for_s": fault.duration_s,
            "fault": fault.kind.name,
            "role": fault.role,
            "with": fault.companion_of,
        }
        for fault in plan.faults
    ]
    if as_json:
        print_json({"seed": plan.seed, "servers": plan.servers, "seconds": plan.seconds, "faults": rows})
        return
    print_line(f"seed {plan.seed}, {plan.servers} servers, {plan.seconds:.0f} s, {len(plan.faults)} faults")
    columns = ("", "at", "for", "fault", "to", "while", "what")
    table = [
        (
            str(fault.number),
            f"{fault.start_s:.1f} s",
            f"{fault.duration_s:.1f} s",
            fault.kind.name,
            fault.role,
            "" if fault.companion_of is None else f"{fault.companion_of} lasts",
            fault.kind.does,
        )
        for fault in plan.faults
    ]
    print_table(columns, table, right=("", "at", "for"))
    if plan.not_reached:
        print_line(f"too short for: {', '.join(plan.not_reached)}")


def _print_beginning(console: Console, settings: ChaosSettings) -> None:
    plan = settings.plan
    console.print(
        f"[bold]chaos[/] seed {plan.seed}: {plan.servers} servers, {len(plan.faults)} faults in "
        f"{plan.seconds / 60:.1f} minutes; report and history in {escape(str(settings.out))}"
    )
    for need in settings.missing:
        lost = ", ".join(kind.name for kind in KINDS.values() if need in kind.needs)
        console.print(f"[bold yellow]lacking on this machine: {NEEDS[need]}; not shown: {lost}[/]")


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[Step], None]]:
    """Where the run is: a bar on a terminal, nothing elsewhere."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(28), TaskProgressColumn())
    with Progress(
        *columns,
        TextColumn("[dim]{task.fields[told]}[/]"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("starting", total=None, told="")

        def tell(step: Step) -> None:
            told = f"{step.acknowledged:,} ok · leader {step.leader or 'none'} · {escape(step.doing)[:70]}"
            if step.problems:
                told = f"[red]{step.problems} problems[/] · {told}"
            total = step.total_s or None
            bar.update(
                task, description=step.phase, completed=min(step.done_s, total or 0), total=total, told=told
            )

        yield tell


def _print_result(console: Console, result: RunResult) -> None:
    if result.figures:
        console.print(_gaps(result))
        calm = "" if result.calm_gap_ms is None else f"; without any fault {result.calm_gap_ms:.0f} ms"
        console.print(f"[dim]longest time without an acknowledged write, in ms{calm}[/]")
    for row in result.figures:
        if len(row.gaps_ms) >= DISTRIBUTION_FROM:
            _print_distribution(console, row)
    for check in result.checks:
        console.print(f"{MARKS[check.outcome]} {escape(check.name)}: {escape(check.told)}")
        for detail in check.details:
            console.print(f"    {escape(detail)}")
    statuses = result.statuses
    console.print(
        f"{statuses.get('ok', 0):,} operations acknowledged, {statuses.get('fail', 0):,} refused, "
        f"{statuses.get('unknown', 0):,} of unknown outcome; {len(result.occurrences)} faults, "
        f"{result.leader_changes} changes of leader"
    )
    for kind, why in result.not_shown.items():
        console.print(f"[bold yellow]not shown: {escape(kind)}: {escape(why)}[/]")
    if result.plan.not_reached:
        console.print(f"[dim]too short a run for: {', '.join(result.plan.not_reached)}[/]")
    console.print(f"[{STYLES[result.word]}]{escape(result.headline())}[/]")
    console.print(
        f"{escape(result.directory)}/report.html    repeat: {escape(result.repeat)}", soft_wrap=True
    )


def _print_distribution(console: Console, row: KindFigures) -> None:
    """Percentiles of one kind's gaps, and a bar for each stretch of them."""
    told = ", ".join(f"p{percent} {percentile(row.gaps_ms, percent):,.0f}" for percent in (10, 50, 90, 99))
    console.print(
        f"[bold]{row.kind}[/], {len(row.gaps_ms)} times: shortest {row.gaps_ms[0]:,.0f}, {told}, "
        f"longest {row.max_ms:,.0f} ms"
    )
    edges = nice_steps(row.max_ms, DISTRIBUTION_BARS)
    counts = Counter(min(int(gap_ms / edges[1]), len(edges) - 2) for gap_ms in row.gaps_ms)
    for index in range(min(counts), max(counts) + 1):
        bar = "█" * round(40 * counts[index] / max(counts.values()))
        console.print(
            f"  {edges[index]:>6,.0f} to {edges[index + 1]:>6,.0f} ms {counts[index]:>4} [blue]{bar}[/]"
        )


def _gaps(result: RunResult) -> Table:
    table = Table(header_style="bold")
    table.add_column("fault")
    for name in ("times", "median", "p99", "longest"):
        table.add_column(name, justify="right")
    table.add_column("goal")
    table.add_column("")
    for row in result.figures:
        met = "" if row.goal is None else "[red]missed[/]" if row.missed else "[green]met[/]"
        figures = (f"{value:,.0f}" for value in (row.median_ms, row.p99_ms, row.max_ms))
        table.add_row(row.kind, str(len(row.gaps_ms)), *figures, goal_text(row.goal), met)
    return table


COMMANDS = {"chaos": chaos}
