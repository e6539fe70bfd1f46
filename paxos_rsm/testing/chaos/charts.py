"""Drawings for the report, as SVG text: no library, nothing loaded from anywhere.

Colours are CSS variables of the page (see report.py), so that light and dark are the browser's choice. Every drawing
scales with the page: its ``viewBox`` is :data:`WIDTH` wide. Whatever comes from outside is escaped.

What stands below each other shares one axis of time, and the faults run through all of it as bands.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Band", "Lane", "Segment", "Series", "histogram", "nice_steps", "timeline"]

WIDTH = 1160
LEFT = 64
RIGHT = 16
CHART_HEIGHT = 130
LANE_HEIGHT = 18
LANE_GAP = 5
LABELS_HEIGHT = 96
POINTS_MAX = 1_200


@dataclass(frozen=True, slots=True)
class Band:
    """A time in which something was wrong; labels of bands that are too close, or say the same again, are left out."""

    begin_s: float
    end_s: float
    label: str
    title: str = ""
    """Shown where the pointer rests."""
    style: str = "fault"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a lane; ``style`` is a class of the style sheet."""

    begin_s: float
    end_s: float
    style: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """One server's row."""

    name: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One line: (seconds, value) in order; None breaks it."""

    name: str
    style: str
    points: tuple[tuple[float, float | None], ...]


class _Axis:
    """From seconds to x."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 1.0)

    def x(self, at_s: float) -> float:
        inner = WIDTH - LEFT - RIGHT
        return LEFT + inner * min(max(at_s, 0.0), self.seconds) / self.seconds


def nice_steps(highest: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers from 0 to at least ``highest``."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [round(step * index, 10) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def timeline(
    seconds: float,
    bands: Sequence[Band],
    throughput: Sequence[Series],
    latency: Sequence[Series],
    lanes: Sequence[Lane],
) -> str:
    """Throughput, latency and who led, one below the other, with the faults as bands through all of them."""
    axis = _Axis(seconds)
    top = LABELS_HEIGHT
    parts: list[str] = []
    height = top + 2 * (CHART_HEIGHT + 34) + len(lanes) * (LANE_HEIGHT + LANE_GAP) + 34
    parts.extend(_bands(axis, bands, top, height - 26))
    parts.extend(_chart(axis, top, "operations per second", throughput, logarithmic=False))
    below = top + CHART_HEIGHT + 34
    parts.extend(_chart(axis, below, "latency, ms", latency, logarithmic=True))
    at = below + CHART_HEIGHT + 34
    parts.append(_text(LEFT, at - 8, "who leads", "head"))
    for lane in lanes:
        parts.extend(_lane(axis, at, lane))
        at += LANE_HEIGHT + LANE_GAP
    parts.extend(_time_axis(axis, at + 4))
    return _svg(height, parts, "throughput, latency and leader over time, with the faults")


def _svg(height: float, parts: Iterable[str], label: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{body}\n</svg>'
    )


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _bands(axis: _Axis, bands: Sequence[Band], top: float, bottom: float) -> Iterable[str]:
    labelled_until, last = -math.inf, ""
    for band in sorted(bands, key=lambda each: each.begin_s):
        x, end = axis.x(band.begin_s), axis.x(band.end_s)
        width = max(end - x, 1.0)
        yield (
            f'<rect x="{x:.1f}" y="{top:.0f}" width="{width:.1f}" height="{bottom - top:.0f}" '
            f'class="band {band.style}"><title>{escape(band.title or band.label)}</title></rect>'
        )
        middle = x + width / 2
        if middle - labelled_until >= 11 and band.label != last:
            labelled_until, last = middle, band.label
            yield (
                f'<text x="{middle:.1f}" y="{top - 5:.1f}" class="bandname" '
                f'transform="rotate(-38 {middle:.1f} {top - 5:.1f})">{escape(band.label)}</text>'
            )


def _chart(
    axis: _Axis, top: float, title: str, series: Sequence[Series], *, logarithmic: bool
) -> Iterable[str]:
    values = [value for each in series for _, value in each.points if value is not None]
    highest = max(values, default=1.0)
    bottom = top + CHART_HEIGHT
    if logarithmic:
        lowest_power = 0
        highest_power = max(1, math.ceil(math.log10(max(highest, 1.0)) - 1e-9))
        ticks = [10.0**power for power in range(lowest_power, highest_power + 1)]

        def y(value: float) -> float:
            return bottom - CHART_HEIGHT * math.log10(max(value, 1.0)) / highest_power
    else:
        ticks = nice_steps(highest)

        def y(value: float) -> float:
            return bottom - CHART_HEIGHT * value / ticks[-1]

    for tick in ticks:
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
        yield _text(LEFT - 7, y(tick) + 4, f"{tick:,.10g}", "tick", "end")
    yield _text(LEFT, top - 8 if top > LABELS_HEIGHT else top + 12, title, "head")
    at = LEFT + 190.0
    for each in series:
        yield f'<path d="{_path(axis, each, y)}" class="line {each.style}"/>'
        key_y = top - 12 if top > LABELS_HEIGHT else top + 8
        yield f'<line x1="{at:.0f}" x2="{at + 18:.0f}" y1="{key_y:.0f}" y2="{key_y:.0f}" class="line {each.style}"/>'
        yield _text(at + 23, key_y + 4, each.name, "key")
        at += 42 + 7 * len(each.name)


def _path(axis: _Axis, series: Series, y: Callable[[float], float]) -> str:
    commands: list[str] = []
    pen_down = False
    for at_s, value in _thinned(series.points):
        if value is None:
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{axis.x(at_s):.1f} {y(value):.1f}")
        pen_down = True
    return "".join(commands)


def _thinned(points: Sequence[tuple[float, float | None]]) -> Sequence[tuple[float, float | None]]:
    """At most POINTS_MAX of them: of each stretch the mean, so that an hour can be drawn."""
    stride = -(-len(points) // POINTS_MAX)
    if stride <= 1:
        return points
    found: list[tuple[float, float | None]] = []
    for index in range(0, len(points), stride):
        stretch = points[index : index + stride]
        values = [value for _, value in stretch if value is not None]
        found.append((stretch[0][0], sum(values) / len(values) if values else None))
    return found


def _lane(axis: _Axis, top: float, lane: Lane) -> Iterable[str]:
    yield _text(LEFT - 7, top + LANE_HEIGHT - 5, lane.name, "tick", "end")
    for segment in lane.segments:
        x = axis.x(segment.begin_s)
        width = max(axis.x(segment.end_s) - x, 0.6)
        yield (
            f'<rect x="{x:.1f}" y="{top:.0f}" width="{width:.1f}" height="{LANE_HEIGHT}" '
            f'class="role {segment.style}"><title>{escape(segment.title or segment.style)}</title></rect>'
        )


def _time_axis(axis: _Axis, top: float) -> Iterable[str]:
    for at_s in nice_steps(axis.seconds, 10):
        if at_s <= axis.seconds:
            x = axis.x(at_s)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{top + 5:.0f}" class="axis"/>'
            yield _text(x, top + 18, f"{at_s:g} s", "tick", "middle")


def histogram(values: Sequence[float], limits: Sequence[tuple[str, float]] = (), unit: str = "ms") -> str:
    """How ``values`` are spread, in some thirty bars, with a line for each of the named ``limits``."""
    highest = max([*values, *(value for _, value in limits)], default=1.0)
    edges = nice_steps(highest, 30)
    step = edges[1]
    counts = [0] * len(edges)
    for value in values:
        counts[min(int(value / step), len(counts) - 1)] += 1
    top, bottom = 24.0, 24.0 + CHART_HEIGHT
    inner = WIDTH - LEFT - RIGHT
    whole = step * len(edges)
    most = max([*counts, 1])
    parts = []
    for tick in nice_steps(most, 3):
        y = bottom - CHART_HEIGHT * tick / nice_steps(most, 3)[-1]
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(LEFT - 7, y + 4, f"{tick:g}", "tick", "end"))
    for index, count in enumerate(counts):
        tall = CHART_HEIGHT * count / nice_steps(most, 3)[-1]
        x = LEFT + inner * index / len(counts)
        told = f"{edges[index]:g} to {edges[index] + step:g} {unit}: {count}"
        parts.append(
            f'<rect x="{x + 0.5:.1f}" y="{bottom - tall:.1f}" width="{inner / len(counts) - 1:.1f}" '
            f'height="{tall:.1f}" class="bar"><title>{escape(told)}</title></rect>'
        )
    parts.extend(
        _text(LEFT + inner * edge / whole, bottom + 18, f"{edge:g} {unit}", "tick", "middle")
        for edge in nice_steps(whole, 10)
        if edge <= whole
    )
    for name, value in limits:
        x = LEFT + inner * value / whole
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{bottom:.0f}" class="limit"/>')
        parts.append(_text(x + 4, top + 2, name, "key"))
    return _svg(bottom + 28, parts, "how long the gaps were")
