"""Accuracy against what it costs, as inline SVG: one drawing for wide screens and one for phones,
whose text is as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from niwaki.report.runs import pareto

SIZES = {"wide": (620, 330), "narrow": (340, 300)}  # pixels; the page shows the one that fits
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 16, 44
MANY = 40  # dots from which those behind the front are small, and skipped by the keyboard


@dataclass(frozen=True)
class Dot:
    """One network: `original` where it is the unpruned one."""

    cost: float
    accuracy: float  # percent
    tip: str
    number: int = 0  # as the runs are numbered on the page
    original: bool = False


def scatter(dots: Sequence[Dot], title: str, unit: str, show: Callable[[float], str]) -> str:
    """Accuracy in percent against a cost, with the Pareto front; dots can be reached by keyboard
    and say what they are.
    """
    drawings = [_drawing(dots, kind, size, title, unit, show) for kind, size in SIZES.items()]
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{"".join(drawings)}</figure>'


def _drawing(
    dots: Sequence[Dot],
    kind: str,
    size: tuple[int, int],
    title: str,
    unit: str,
    show: Callable[[float], str],
) -> str:
    width, height = size
    xs, ys = (
        _ticks(0, max(dot.cost for dot in dots) * 1.04, 4 if kind == "narrow" else 6),
        _accuracy_ticks(dots),
    )
    low_y, high_y = ys[0], ys[-1]
    high_x = max(xs[-1], max(dot.cost for dot in dots) * 1.04)

    def x(value: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * value / high_x

    def y(value: float) -> float:
        return height - BOTTOM - (height - TOP - BOTTOM) * (value - low_y) / (high_y - low_y)

    parts = [
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="group" aria-label="{escape(title)}">'
    ]
    for tick in ys:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in xs:
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{escape(show(tick))}</text>'
        )
    parts.append(
        f'<text class="axis" x="{width - RIGHT}" y="{height - 6}" text-anchor="end">{escape(unit)}</text>'
    )
    parts.append(f'<text class="axis" x="2" y="{TOP - 4}">%</text>')
    front = pareto((dot.cost, dot.accuracy) for dot in dots)
    line = " ".join(f"{x(dots[i].cost):.1f},{y(dots[i].accuracy):.1f}" for i in front)
    if len(front) > 1:
        parts.append(f'<polyline class="front" points="{line}"/>')
    for index in sorted(
        range(len(dots)), key=lambda i: i in front
    ):  # those on the front lie on top
        parts.append(
            _mark(
                dots[index],
                x(dots[index].cost),
                y(dots[index].accuracy),
                index in front,
                len(dots) > MANY,
            )
        )
    return "".join([*parts, "</svg>"])


def _mark(dot: Dot, x: float, y: float, best: bool, many: bool) -> str:
    tip = escape(dot.tip, quote=True)
    kind = "original" if dot.original else "best" if best else "other"
    shape = (
        f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" rx="2" transform="rotate(45 {x:.1f} {y:.1f})"/>'
        if dot.original
        else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        f'<text x="{x:.1f}" y="{y + 3.6:.1f}" text-anchor="middle">{dot.number}</text>'
    )
    if many and not best and not dot.original:
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        return f'<g class="dot other small" role="img" aria-label="{tip}" data-tip="{tip}">{circle}</g>'
    return f'<g class="dot {kind}" tabindex="0" role="img" aria-label="{tip}" data-tip="{tip}">{shape}</g>'


def _accuracy_ticks(dots: Sequence[Dot]) -> list[float]:
    values = [dot.accuracy for dot in dots]
    low, high = min(values), max(values)
    room = max((high - low) * 0.12, 0.5)
    return _ticks(max(0.0, low - room), min(100.0, high + room), 5, inside=False)


def _ticks(low: float, high: float, wanted: int, *, inside: bool = True) -> list[float]:
    """Round numbers from low to high, about so many; with `inside` none beyond high, else the ends
    lie around both.
    """
    span = max(high - low, 1e-12)
    raw = span / wanted
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first, last = (
        math.floor(low / step + 1e-9),
        (math.floor if inside else math.ceil)(high / step - (0 if inside else 1e-9)),
    )
    ticks = [round(step * k, 10) for k in range(first, last + 1)]
    return [tick for tick in ticks if inside or tick <= 100 or tick - step < high] or [low, high]
