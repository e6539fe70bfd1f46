"""The report: one HTML file that needs nothing else, to be read in a browser, light or dark, or attached to an issue.

It says first whether the run was good; then what happened, in one drawing; then what each fault cost, against the
goals; then each check; then how to repeat it. Where a check failed, the checker's drawing of the history stands right
below the verdict. Whatever comes from the run is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from paxos_rsm.testing.chaos.charts import Band, Lane, Segment, Series, histogram, timeline
from paxos_rsm.testing.chaos.gaps import KindFigures
from paxos_rsm.testing.chaos.kinds import KINDS, NEEDS, Goal
from paxos_rsm.testing.chaos.outcome import Check, RunResult

__all__ = ["goal_text", "render", "role_lanes"]

HISTOGRAM_FROM = 10
"""Occurrences of one kind from which a histogram says more than three figures."""
MARKS = {"ok": "✓", "violation": "✗", "unknown": "?", "incomplete": "!"}

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1d2129; --soft: #667080; --rule: #e3e5e9;
  --good: #1a7f4b; --bad: #c2293a; --warn: #a15c00; --blue: #2f6fde; --teal: #0f8b8d; --violet: #7a55c7;
  --band: rgba(210, 100, 30, .13); --band2: rgba(122, 85, 199, .15); --follower: #d5dae2; --candidate: #e7b04b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14161a; --card: #1b1e24; --ink: #e4e7ec; --soft: #929baa; --rule: #30353e;
  --good: #4cc38a; --bad: #ff6b78; --warn: #e5a84b; --blue: #6ea2ff; --teal: #43c6c1; --violet: #b294f5;
  --band: rgba(240, 140, 70, .16); --band2: rgba(170, 140, 250, .18); --follower: #3a414c; --candidate: #c99a3f; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 22px; margin: 0 } h2 { font-size: 16px; margin: 30px 0 10px } p { margin: 6px 0 }
.soft, .sub { color: var(--soft) } .sub { margin: 2px 0 18px }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px;
  overflow-x: auto }
.verdict { border-left: 6px solid; margin-bottom: 14px; font-size: 18px; font-weight: 600 }
.verdict.ok { border-left-color: var(--good) } .verdict.violation { border-left-color: var(--bad) }
.verdict.unknown, .verdict.incomplete { border-left-color: var(--warn) }
.ok b.mark, td.met { color: var(--good) } .violation b.mark, td.missed { color: var(--bad) }
.unknown b.mark, .incomplete b.mark, .loud { color: var(--warn) } .loud { font-weight: 600 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 10px; margin: 14px 0 }
.tile b { display: block; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 13px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top }
tr:last-child td { border-bottom: 0 } th { color: var(--soft); font-weight: 500; font-size: 13px;
  white-space: nowrap }
.n { text-align: right; white-space: nowrap }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, monospace }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere } ul { margin: 6px 0; padding-left: 20px }
img.history { background: #fff; border-radius: 6px; max-width: none }
svg { display: block; width: 100%; min-width: 760px; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) } svg text.head { font-weight: 600; fill: var(--ink) }
svg text.bandname { font-size: 10px } .grid { stroke: var(--rule); stroke-width: 1 } .axis { stroke: var(--soft) }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round } .writes { stroke: var(--blue) }
.reads { stroke: var(--teal) } .p50 { stroke: var(--teal) } .p99 { stroke: var(--violet) }
.band.fault { fill: var(--band) } .band.combined { fill: var(--band2) } .bar { fill: var(--blue) }
.limit { stroke: var(--bad); stroke-dasharray: 4 3 }
.role { fill: var(--follower) } .role.leader { fill: var(--good) }
.role.candidate, .role.forming { fill: var(--candidate) }
.role.down { fill: none; stroke: var(--rule) }
details summary { cursor: pointer; color: var(--soft) }
"""


def render(result: RunResult) -> str:
    """The whole page."""
    title = f"chaos: {result.word}, seed {result.plan.seed}"
    parts = [
        _header(result),
        _missing(result),
        _wrong(result.checks),
        _tiles(result),
        f"<h2>What happened</h2><div class=card>{_timeline(result)}{LEGEND}</div>",
        _gaps(result),
        _histograms(result.figures),
        _checks(result.checks),
        _latencies(result),
        _faults(result),
        _repeat(result),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


LEGEND = (
    '<p class="soft">Lanes: green leads, grey follows, amber stands for election, empty does not answer. '
    "Shaded: a fault; violet where another fell into its time. Rest the pointer on a band to read what was done.</p>"
)


def _header(result: RunResult) -> str:
    plan = result.plan
    sub = (
        f"{plan.servers} servers · {_length(result.ran_s)} · seed {plan.seed} · "
        f"paxos_rsm {result.version} · {result.began}"
    )
    return (
        f"<h1>Chaos run</h1><p class=sub>{escape(sub)}</p>"
        f'<div class="card verdict {result.word}"><b class="mark">{MARKS[result.word]}</b> '
        f"{escape(result.headline())}</div>"
    )


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _missing(result: RunResult) -> str:
    """What this machine could not do, aloud."""
    lines = [f"Lacking on this machine: {NEEDS[need]}." for need in result.missing]
    lines += [f"{kind} did not strike once: {why}." for kind, why in result.not_shown.items()]
    if result.plan.not_reached:
        lines.append(f"Too short a run for: {', '.join(result.plan.not_reached)}.")
    if not lines:
        return ""
    return '<div class="card loud">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div>"


def _wrong(checks: Sequence[Check]) -> str:
    """What is wrong, with the drawings, before anything else."""
    parts = []
    for check in checks:
        if check.outcome != "ok":
            details = "".join(f"<li>{escape(detail)}</li>" for detail in check.details)
            parts.append(
                f'<h2 class="{check.outcome}"><b class="mark">{MARKS[check.outcome]}</b> {escape(check.name)}</h2>'
                f"<div class=card><p>{escape(check.told)}</p>{f'<ul>{details}</ul>' if details else ''}"
                f"{check.drawing}</div>"
            )
    return "".join(parts)


def _tiles(result: RunResult) -> str:
    acknowledged = result.statuses.get("ok", 0)
    per_s = acknowledged / result.ran_s if result.ran_s else 0.0
    worst = max((each.gap.ms for each in result.occurrences if each.gap is not None), default=0.0)
    tiles = (
        (f"{acknowledged:,}", "operations acknowledged"),
        (f"{per_s:,.0f}/s", "on average, faults included"),
        (f"{result.statuses.get('unknown', 0):,}", "with an unknown outcome"),
        (f"{result.statuses.get('fail', 0):,}", "refused, nothing done"),
        (f"{len(result.occurrences)}", "faults"),
        (f"{result.leader_changes}", "changes of leader"),
        (f"{worst:,.0f} ms", "longest without a write"),
    )
    shown = "".join(
        f'<div class="card tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles
    )
    return f"<div class=tiles>{shown}</div>"


# ---- the drawing -----------------------------------------------------------------------------------------


def _timeline(result: RunResult) -> str:
    bands = [
        Band(
            each.begin_ms / 1e3,
            each.end_ms / 1e3,
            each.kind,
            f"{each.kind}: {each.what}"
            + ("" if each.gap is None else f" ({each.gap.ms:.0f} ms without a write)"),
            "combined" if each.combined else "fault",
        )
        for each in result.occurrences
    ]
    at = [index + 0.5 for index in range(len(result.seconds))]
    throughput = [
        Series("writes", "writes", tuple(zip(at, (float(s[0]) for s in result.seconds), strict=True))),
        Series("reads", "reads", tuple(zip(at, (float(s[1]) for s in result.seconds), strict=True))),
    ]
    latency = [
        Series("median", "p50", tuple(zip(at, (s[2] for s in result.seconds), strict=True))),
        Series("99th percentile", "p99", tuple(zip(at, (s[3] for s in result.seconds), strict=True))),
    ]
    names = [f"n{number}" for number in range(1, result.plan.servers + 1)]
    return timeline(result.ran_s, bands, throughput, latency, role_lanes(result.events, names, result.ran_s))


def role_lanes(events: Iterable[Any], names: Sequence[str], seconds: float) -> list[Lane]:
    """What each server was, and from when to when, of the ``role`` events."""
    segments: dict[str, list[Segment]] = {name: [] for name in names}
    since: dict[str, tuple[float, str, int]] = {}

    def close(name: str, end_s: float) -> None:
        begin_s, role, ballot = since[name]
        told = (
            f"{name} {role}"
            + (f", ballot {ballot}" if ballot else "")
            + f", from {begin_s:.1f} to {end_s:.1f} s"
        )
        segments[name].append(Segment(begin_s, end_s, role, told))

    for event in events:
        if event["event"] == "role" and event["server"] in segments:
            name, at_s = event["server"], event["t"] / 1e3
            if name in since:
                close(name, at_s)
            since[name] = at_s, event["role"], event.get("round", 0)
    for name in since:
        close(name, seconds)
    return [Lane(name, tuple(found)) for name, found in segments.items()]


# ---- the tables --------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """``head`` and cells are HTML already."""

    def cell(tag: str, index: int, text: str) -> str:
        style = " class=n" if index in numbers else ""
        if text.startswith("<td"):
            return text
        return f"<{tag}{style}>{text}</{tag}>"

    top = "".join(cell("th", index, name) for index, name in enumerate(head))
    body = "".join(
        f"<tr>{''.join(cell('td', index, text) for index, text in enumerate(row))}</tr>" for row in rows
    )
    return f"<div class=card><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def goal_text(goal: Goal | None) -> str:
    """``median 400, p99 1000, longest 2000 ms``; a dash for none."""
    if goal is None:
        return "–"
    named = (("median", goal.median_ms), ("p99", goal.p99_ms), ("longest", goal.max_ms))
    told = [f"{name} {limit:,.0f} ms" for name, limit in named if limit is not None]
    if goal.leader_changes_max is not None:
        told.append(f"at most {goal.leader_changes_max} change of leader")
    return ", ".join(told)


def _gaps(result: RunResult) -> str:
    if not result.figures:
        return ""
    rows = []
    for row in result.figures:
        missed = row.missed
        if row.goal is None:
            met = "–"
        elif missed:
            met = f'<td class="missed">missed: {escape("; ".join(missed))}</td>'
        else:
            met = '<td class="met">met</td>'
        held = f"{row.held_gaps_ms[-1]:,.0f}" if row.held_gaps_ms else "–"
        rows.append(
            (
                f"<span title='{escape(KINDS[row.kind].does, quote=True)}'>{escape(row.kind)}</span>",
                str(len(row.gaps_ms)),
                *(f"{value:,.0f}" for value in (row.median_ms, row.p99_ms, row.max_ms)),
                held,
                str(row.leader_changes_max),
                f"{row.stall_ms:,.0f}",
                escape(goal_text(row.goal)),
                met,
            )
        )
    head = ("fault", "times", "median", "p99", "longest", "… while it lasted", "leader changes", "own stall")
    calm = (
        ""
        if result.calm_gap_ms is None
        else f" Without any fault the longest was {result.calm_gap_ms:,.0f} ms."
    )
    note = (
        "The longest time without an acknowledged write, to anybody, from the start of the fault until five seconds "
        "after its end, in ms; of the faults that were alone. <i>Own stall</i>: how long the process with the clients "
        f"stood still at most meanwhile, of which no server is guilty.{calm}"
    )
    table = _table((*head, "goal", ""), rows, numbers=(1, 2, 3, 4, 5, 6, 7))
    return f"<h2>Longest gap between acknowledged writes</h2><p class=soft>{note}</p>{table}"


def _histograms(figures: Sequence[KindFigures]) -> str:
    parts = []
    for row in figures:
        if len(row.gaps_ms) >= HISTOGRAM_FROM:
            goal = row.goal or Goal()
            named = (("median goal", goal.median_ms), ("p99 goal", goal.p99_ms), ("worst", goal.max_ms))
            limits = [(name, limit) for name, limit in named if limit is not None]
            parts.append(
                f"<h2>{escape(row.kind)}: {len(row.gaps_ms)} gaps</h2>"
                f"<div class=card>{histogram(row.gaps_ms, limits)}</div>"
            )
    return "".join(parts)


def _checks(checks: Sequence[Check]) -> str:
    rows = [
        (
            f'<td class="{check.outcome}"><b class="mark">{MARKS[check.outcome]}</b></td>',
            escape(check.name),
            escape(check.told),
        )
        for check in checks
    ]
    return f"<h2>Checks</h2>{_table(('', 'check', 'what was found'), rows)}"


def _latencies(result: RunResult) -> str:
    if not result.latencies:
        return ""
    columns = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    rows = [
        (
            escape(name),
            f"{row.get('count') or 0:,.0f}",
            *("–" if (value := row.get(column)) is None else f"{value:,.1f}" for column in columns),
        )
        for name, row in result.latencies.items()
    ]
    head = ("operation", "acknowledged", "median", "p90", "p99", "longest")
    errors = ", ".join(f"{name} {count:,}" for name, count in result.errors.items()) or "none"
    return (
        f"<h2>Latency, ms</h2>{_table(head, rows, numbers=(1, 2, 3, 4, 5))}"
        f"<p class=soft>Errors that clients saw: {escape(errors)}.</p>"
    )


def _faults(result: RunResult) -> str:
    rows = [
        (
            f"{each.begin_ms / 1e3:.1f}",
            f"{(each.end_ms - each.begin_ms) / 1e3:.1f}",
            escape(each.kind) + (" <span class=soft>(combined)</span>" if each.combined else ""),
            escape(each.what),
            "–" if each.gap is None else f"{each.gap.ms:,.0f}",
            str(each.leader_changes),
        )
        for each in sorted(result.occurrences, key=lambda each: each.begin_ms)
    ]
    head = ("at, s", "for, s", "fault", "what was done", "gap, ms", "leader changes")
    return (
        f"<h2>Every fault</h2><details{' open' if len(rows) <= 40 else ''}><summary>{len(rows)} in order</summary>"
        f"{_table(head, rows, numbers=(0, 1, 4, 5))}</details>"
    )


def _repeat(result: RunResult) -> str:
    files = (
        "history.jsonl (every operation), events.jsonl (faults and leaders), result.json, the servers' logs"
    )
    return (
        f"<h2>Repeat it</h2><div class=card><pre>{escape(result.repeat)}</pre>"
        "<p class=soft>The same seed draws the same plan; it does not make the same run. "
        f"Beside this report: {files}.</p></div>"
    )
