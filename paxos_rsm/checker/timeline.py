"""Draws a history as an SVG, or as an HTML page around it: no script, no network, one file to mail around.

One lane a process, one bar an operation, from its call to its return; one of unknown outcome runs on to the edge with a
dashed outline, a failed one is grey. Time runs in **events**: every call and return gets the same width, however
long it was until the next, for what matters is who overlaps whom; the axis says the times. The order that the check
found is a line through numbered points, each inside its bar. What fits nowhere is red.

A long history is cut to the window that matters: the operation that fits nowhere, those that wrote what it tells, the
end of the longest order found, and whatever was pending or had just returned.
"""

import html
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from paxos_rsm.checker.history import Operation, freeze
from paxos_rsm.checker.model import Model
from paxos_rsm.checker.result import Result, Verdict

__all__ = ["draw_html", "draw_svg"]

STEP_PX = 46
BAR_PX = 22
ROW_PX = 40
LEFT_PX = 110
TOP_PX = 16
AXIS_PX = 46
CHAR_PX = 6.7
COLOURS = ("#cfe3f7", "#fbe3bd", "#d6efd2", "#e6d9f2", "#f6d5de", "#d3eeee", "#ecebc4")

STYLE = """
text { font: 11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #222 }
.lane { stroke: #e4e4e4 } .axis { fill: #777; font-size: 10px } .name { font-weight: bold }
.bar { stroke: #7d8a97; stroke-width: 1 } .unknown { stroke-dasharray: 5 3; fill-opacity: .45 }
.fail { fill: #eee; stroke: #bbb } .faint { fill: #888 }
.bad { fill: #ffb3ab; stroke: #c00; stroke-width: 2.5 } .badtext { fill: #b00000; font-weight: bold }
.order { fill: none; stroke: #1463b0; stroke-width: 1.3; stroke-opacity: .55 }
.point { fill: #1463b0 } .number { fill: #1463b0; font-size: 9px; font-weight: bold }
"""

PAGE_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1300px; padding: 0 1em; color: #222 }
.linearizable { color: #14692e } .violation { color: #b00000 } .unknown { color: #8a5a00 }
.drawing { overflow-x: auto; border: 1px solid #ddd; border-radius: 6px; background: #fff }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 12px 2px 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #eee } td.n { text-align: right; font-variant-numeric: tabular-nums }
tr.bad td { background: #ffe3df } code { font: 12px ui-monospace, Menlo, Consolas, monospace }
"""


@dataclass(frozen=True)
class _View:
    """What is drawn."""

    ops: list[Operation]
    total: int
    numbers: dict[int, int]
    """By id: the place in the order found, from 1."""
    bad: frozenset[int]
    """Ids of what fits nowhere."""
    model: Model


def _choose(
    history: Iterable[Operation],
    result: Result | None,
    model: Model | type[Model] | None,
    key: Hashable,
    operations_max: int,
) -> _View:
    model = Model() if model is None else model() if isinstance(model, type) else model
    every = list(history)
    order: Sequence[Operation] = ()
    if result is not None:
        if key is None and result.verdict is not Verdict.LINEARIZABLE:
            key = result.key
        if key is None and len(result.orders) == 1 and result.verdict is Verdict.LINEARIZABLE:
            key = next(iter(result.orders))
        if result.verdict is Verdict.VIOLATION and key == result.key:
            order = result.prefix
        else:
            order = result.orders.get(key, ())
    ops = every if key is None else [op for op in every if freeze(model.key_of(op)) == freeze(key)]
    ops.sort(key=lambda op: op.call)
    bad = result.unplaced if result is not None else ()
    shown = _window(ops, bad, order, operations_max) if len(ops) > operations_max else ops
    return _View(
        shown,
        len(ops),
        {id(op): number for number, op in enumerate(order, 1)},
        frozenset(map(id, bad)),
        model,
    )


def _window(
    ops: list[Operation], bad: Sequence[Operation], order: Sequence[Operation], operations_max: int
) -> list[Operation]:
    """The operations worth showing, by call."""
    if not bad:
        return ops[:operations_max]
    focus = bad[0]
    told = freeze(focus.output)
    kept = {id(op) for op in (*bad, *order[-8:])}
    kept.update(
        [id(op) for op in ops if told is not None and freeze(op.input) == told][: operations_max // 4]
    )

    def distance(op: Operation) -> tuple[int, float]:
        if id(op) in kept:
            return (0, 0)
        if op.call > (focus.call if focus.return_ is None else focus.return_):
            return (2, op.call)
        # One of unknown outcome is near while it is young: they stay pending for ever, and there may be hundreds.
        end = op.call if op.return_ is None or op.status == "unknown" else op.return_
        return (1, max(0.0, focus.call - end))

    return sorted(sorted(ops, key=distance)[:operations_max], key=lambda op: op.call)


class _Layout:
    """Where everything stands."""

    def __init__(self, view: _View) -> None:
        ends = [op.return_ for op in view.ops if op.return_ is not None and op.status != "unknown"]
        self.times = sorted({*(op.call for op in view.ops), *ends})
        self.right = LEFT_PX + STEP_PX * (len(self.times) + 1)
        self.rows: list[list[Operation]] = []
        self.lanes: list[tuple[int | str, int, int]] = []
        """(process, first row, rows): a process that overlaps itself has several."""
        self.row_of: dict[int, int] = {}
        self.room: dict[int, float] = {}
        """Up to where the text of an operation may run."""
        processes = sorted({op.process for op in view.ops}, key=lambda each: (isinstance(each, str), each))
        for process in processes:
            first = len(self.rows)
            for op in view.ops:
                if op.process == process:
                    self._place(op, first)
            self.lanes.append((process, first, len(self.rows) - first))
        for row in self.rows:
            for op, following in zip(row, [*row[1:], None], strict=True):
                self.room[id(op)] = self.right if following is None else self.x(following.call)
        self.bottom = TOP_PX + ROW_PX * len(self.rows)

    def _place(self, op: Operation, first: int) -> None:
        for number in range(first, len(self.rows)):
            if self.end(self.rows[number][-1]) <= self.x(op.call):
                break
        else:
            number = len(self.rows)
            self.rows.append([])
        self.rows[number].append(op)
        self.row_of[id(op)] = number

    def x(self, time: float) -> float:
        return LEFT_PX + STEP_PX * (bisect_left(self.times, time) + 0.5)

    def end(self, op: Operation) -> float:
        if op.return_ is None or op.status == "unknown":
            return self.right
        return max(self.x(op.return_), self.x(op.call) + STEP_PX / 3)

    def y(self, op: Operation) -> float:
        return TOP_PX + ROW_PX * self.row_of[id(op)] + 4


def _text(value: object) -> str:
    """Escaped, and without what XML cannot hold."""
    return html.escape("".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value)))


def _time(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def draw_svg(
    history: Iterable[Operation],
    result: Result | None = None,
    *,
    model: Model | type[Model] | None = None,
    key: Hashable = None,
    operations_max: int = 60,
) -> str:
    """The history as one SVG document, with what a check found, if given.

    Of a history with many keys, draws ``key``, else the one that failed, else all. ``model`` words the operations.
    """
    return _svg(_choose(history, result, model, key, operations_max))


def _svg(view: _View) -> str:
    layout = _Layout(view)
    width, height = layout.right + 10, layout.bottom + AXIS_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' role="img" aria-label="timeline of a history">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_lanes(layout),
        *_axis(layout),
    ]
    names = sorted({op.op for op in view.ops})
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    for op in view.ops:
        parts += _bar(view, layout, op, colours[op.op])
    parts += _order(view, layout)
    parts.append("</svg>")
    return "\n".join(parts)


def _lanes(layout: _Layout) -> Iterable[str]:
    for process, first, rows in layout.lanes:
        y = TOP_PX + ROW_PX * first
        yield f'<line class="lane" x1="0" x2="{layout.right}" y1="{y - 4}" y2="{y - 4}"/>'
        yield f'<text class="name" x="8" y="{y + ROW_PX * rows / 2}">{_text(f"process {process}"[:15])}</text>'


def _axis(layout: _Layout) -> Iterable[str]:
    y = layout.bottom + 4
    yield f'<line class="lane" x1="{LEFT_PX}" x2="{layout.right}" y1="{y}" y2="{y}"/>'
    for number, time in enumerate(layout.times):
        x = layout.x(time)
        low = y + 14 + 12 * (number % 2)  # two heights, so that long numbers do not run into each other
        yield f'<line class="lane" x1="{x}" x2="{x}" y1="{y}" y2="{y + 4}"/>'
        yield f'<text class="axis" x="{x}" y="{low}" text-anchor="middle">{_time(time)}</text>'


def _bar(view: _View, layout: _Layout, op: Operation, colour: str) -> Iterable[str]:
    x, end, y = layout.x(op.call), layout.end(op), layout.y(op)
    bad = id(op) in view.bad
    described = view.model.describe(op)
    label = ("✗ " if bad else "") + described
    fits = int((layout.room[id(op)] - x - 6) / CHAR_PX)
    if len(label) > fits:
        label = label[: max(fits - 1, 0)] + ("…" if fits > 0 else "")
    until = "never learned" if op.status == "unknown" else _time(op.return_)
    words = f"{described}\nprocess {op.process}, key {op.key!r}\ncalled {_time(op.call)}, returned {until}"
    if id(op) in view.numbers:
        words += f"\nplace {view.numbers[id(op)]} in the order found"
    if bad:
        words += "\nfits nowhere"
    kind = "bar" + (" bad" if bad else f" {op.status}" if op.status != "ok" else "")
    fill = "" if bad or op.status == "fail" else f' fill="{colour}"'
    lines = "&#10;".join(_text(line) for line in words.split("\n"))
    yield f"<g><title>{lines}</title>"
    yield f'<rect class="{kind}"{fill} x="{x}" y="{y}" width="{end - x:.1f}" height="{BAR_PX}" rx="3"/>'
    style = "badtext" if bad else "faint" if op.status == "fail" else "label"
    yield f'<text class="{style}" x="{x + 4}" y="{y + 15}">{_text(label)}</text></g>'


def _order(view: _View, layout: _Layout) -> Iterable[str]:
    """A line through the operations in the order found, at moments that never go back."""
    placed = sorted((op for op in view.ops if id(op) in view.numbers), key=lambda op: view.numbers[id(op)])
    points: list[tuple[float, float, int]] = []
    x = 0.0
    for op in placed:
        # The latest call so far is never after this one's return: else the order would contradict time.
        x = max(x, layout.x(op.call))
        points.append((x + 2, layout.y(op) + BAR_PX + 5, view.numbers[id(op)]))
    if len(points) > 1:
        line = " ".join(f"{x},{y}" for x, y, _ in points)
        yield f'<polyline class="order" points="{line}"/>'
    for x, y, number in points:
        yield f'<circle class="point" cx="{x}" cy="{y}" r="2.6"/>'
        yield f'<text class="number" x="{x + 4}" y="{y + 4}">{number}</text>'


def draw_html(
    history: Iterable[Operation],
    result: Result | None = None,
    *,
    model: Model | type[Model] | None = None,
    key: Hashable = None,
    title: str = "History",
    operations_max: int = 60,
) -> str:
    """A page with the verdict, the drawing and a table of what is drawn; see :func:`draw_svg`."""
    view = _choose(history, result, model, key, operations_max)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>',
        f"<title>{_text(title)}</title><style>{PAGE_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
    ]
    if result is not None:
        verdict = result.verdict.value
        parts.append(f'<p><strong class="{verdict}">{verdict}</strong>: {_text(result.reason)}</p>')
        counts = f"{result.operations} operations, {result.partitions} keys, {result.steps} steps"
        parts.append(f"<p>{counts}, {result.elapsed_s:.2f} s.</p>")
    shown = f"{len(view.ops)} of {view.total} operations" if len(view.ops) < view.total else "All operations"
    parts.append(
        f"<p>{shown} are drawn. Dashed: the outcome was never learned. The blue line is the order found, red is what"
        " fits nowhere in it. Point at a bar for its times.</p>"
    )
    parts.append(f'<div class="drawing">{_svg(view)}</div>')
    parts.append(
        "<h2>What is drawn</h2><table><tr><th>place</th><th>process</th><th>operation</th><th>call</th>"
    )
    parts.append("<th>return</th><th>status</th></tr>")
    for op in view.ops:
        mark = ' class="bad"' if id(op) in view.bad else ""
        parts.append(
            f'<tr{mark}><td class="n">{view.numbers.get(id(op), "")}</td><td>{_text(op.process)}</td>'
            f"<td><code>{_text(view.model.describe(op))}</code></td>"
            f'<td class="n">{_time(op.call)}</td><td class="n">{_time(op.return_)}</td><td>{op.status}</td></tr>'
        )
    parts.append("</table></body></html>")
    return "\n".join(parts) + "\n"
