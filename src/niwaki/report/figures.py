"""Figures for papers and READMEs, readable in print and by the colour-blind: hue, marker and line
style all differ.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from niwaki.core.errors import DataError, MissingExtraError, UnknownNameError
from niwaki.core.records import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Unit = Literal["share", "params"]

# Okabe and Ito (2008), darkest first; their yellow is left out, which cannot be seen on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#595959"
_LOG_FROM = 50  # sizes that differ by more than this factor are drawn on a logarithmic axis
_SOLID: dict[str, Any] = {"linewidth": 2.0, "markersize": 7, "markeredgecolor": "white"}
_DOTTED: dict[str, Any] = {
    "linewidth": 1.3,
    "markersize": 5,
    "markerfacecolor": "white",
    "linestyle": ":",
}


@dataclass(frozen=True)
class FigurePoint:
    """One pruned network."""

    series: str  # what its line is called, e.g. the method's name
    size: float  # parameters kept: a share of the original in [0, 1], or a count; see `accuracy_size_figure`
    accuracy: float  # share in [0, 1], before fine-tuning
    tuned: float | None = None  # share in [0, 1], after fine-tuning; None: not fine-tuned


def accuracy_size_figure(
    points: Sequence[FigurePoint],
    path: str | Path,
    *,
    baseline: float | None = None,
    unit: Unit = "share",
    title: str | None = None,
) -> None:
    """Draw accuracy (%) against parameters kept as a PNG of 1200 × 750 pixels, one line a series in
    order of arrival.

    Where a series was fine-tuned, its solid line is the accuracy after, and a thin dotted one that
    before. `baseline` is the accuracy of the unpruned network, a share in [0, 1]. `unit` says what
    the points' sizes are: shares of the original, or counts of parameters (on a logarithmic axis
    where they span more than a factor of 50).

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: no points, or one that is out of its range.
        UnknownNameError: no such unit.
        OutputError: `path` cannot be written.
    """
    _check(points, baseline, unit)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    # No pyplot: it keeps a list of figures and a backend for the whole process, which are the
    # user's.
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_series(axes, points)
    _dress(axes, unit, baseline, title)
    _draw_legend(figure, axes, any(point.tuned is not None for point in points))
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_bytes_atomic(path, image.getvalue())


def _check(points: Sequence[FigurePoint], baseline: float | None, unit: str) -> None:
    if unit not in get_args(Unit):
        raise UnknownNameError("unit", unit, get_args(Unit))
    if not points:
        raise DataError("a figure needs at least one point")
    top = 1.0 if unit == "share" else math.inf
    for point in points:
        if not (0 <= point.size <= top and math.isfinite(point.size)) or (
            unit == "params" and point.size == 0
        ):
            hint = "; for counts of parameters pass unit='params'" if unit == "share" else ""
            raise DataError(
                f"size {point.size} of {point.series!r} is not a {unit} that can be drawn{hint}"
            )
    for value in [
        baseline,
        *(value for point in points for value in (point.accuracy, point.tuned)),
    ]:
        if value is not None and not 0 <= value <= 1:
            raise DataError(f"accuracy is a share in [0, 1]; got {value}")


def _draw_series(axes: Axes, points: Sequence[FigurePoint]) -> None:
    names = list(dict.fromkeys(point.series for point in points))
    for index, name in enumerate(names):
        style: dict[str, Any] = {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        mine = sorted(
            (point for point in points if point.series == name), key=lambda point: point.size
        )
        tuned = [(point.size, 100 * point.tuned) for point in mine if point.tuned is not None]
        raw = [(point.size, 100 * point.accuracy) for point in mine]
        solid = tuned or raw
        axes.plot(*zip(*solid, strict=True), **style, **_SOLID, label=name)
        if tuned:
            axes.plot(*zip(*raw, strict=True), **style, **_DOTTED, zorder=1.5)


def _dress(axes: Axes, unit: Unit, baseline: float | None, title: str | None) -> None:
    """Everything around the lines."""
    _label_sizes(axes, unit)
    axes.set_ylabel("accuracy (%)", fontsize=12)
    if title:
        axes.set_title(title, fontsize=13, loc="left", pad=12, fontweight="bold")
    if baseline is not None:
        axes.axhline(100 * baseline, color=_GREY, linestyle=(0, (6, 3)), linewidth=1.2, zorder=1)
        # At the left, where networks are smallest and farthest below: on the right, lines run into
        # the baseline.
        place: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "xytext": (6, 5),
            "textcoords": "offset points",
        }
        axes.annotate(
            f"unpruned {100 * baseline:.1f}", (0, 100 * baseline), **place, color=_GREY, fontsize=10
        )
    axes.grid(color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11, color=_GREY)
    axes.margins(x=0.04, y=0.08)


def _label_sizes(axes: Axes, unit: Unit) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

    if unit == "share":
        axes.set_xlabel("parameters kept (%)", fontsize=12)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        return
    axes.set_xlabel("parameters", fontsize=12)
    low, high = axes.dataLim.intervalx
    if high > _LOG_FROM * low:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_legend(figure: Figure, axes: Axes, tuned: bool) -> None:
    """Series by name below the plot, where they cover no data; within it, what solid and dotted
    mean.
    """
    from matplotlib.lines import Line2D

    handles, _ = axes.get_legend_handles_labels()
    columns = min(
        len(handles), 3 if max(len(str(handle.get_label())) for handle in handles) > 18 else 4
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=11
    )
    if tuned:
        grey: dict[str, Any] = {"color": _GREY, "marker": "o"}
        styles = [
            Line2D([], [], **grey, **_SOLID, label="after fine-tuning"),
            Line2D([], [], **grey, **_DOTTED, label="before"),
        ]
        axes.legend(handles=styles, loc="best", fontsize=10, framealpha=0.9, edgecolor="#E3E3E3")
