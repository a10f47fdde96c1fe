"""Histograms of learned importances, before and after: whether training told the units that are
needed from the rest.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from niwaki.core.errors import DataError, MissingExtraError
from niwaki.core.records import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROOM = 1.5  # how much higher than the fifth highest bin a panel is
_BEFORE, _AFTER, _GREY = "#B8B8B8", "#0072B2", "#595959"


def importance_histograms(
    panels: Mapping[str, tuple[Sequence[int], Sequence[int]]], path: str | Path
) -> None:
    """Draw one panel a network as a PNG of 1200 × 450 pixels and more: how many units have which
    importance.

    Args:
        panels: title → counts in equal bins from 0 to 1 (the last holds all above), at the start of
            training and at its end.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: no panels, or counts of different lengths.
        OutputError: `path` cannot be written.
    """
    if not panels:
        raise DataError("a picture of importances needs at least one network")
    for title, (before, after) in panels.items():
        if len(before) != len(after) or not before:
            raise DataError(
                f"{title}: {len(before)} and {len(after)} bins; both histograms need the same, "
                "and at least one"
            )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(
        figsize=(max(8, 4 * len(panels)), 3), dpi=150, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    row: Sequence[Axes] = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, counts) in zip(row, panels.items(), strict=True):
        _draw(axes, title, *counts)
    row[0].set_ylabel("filters", fontsize=11)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_bytes_atomic(path, image.getvalue())


def _draw(axes: Axes, title: str, before: Sequence[int], after: Sequence[int]) -> None:
    width = 1 / len(before)
    places = [(index + 0.5) * width for index in range(len(before))]
    axes.bar(places, before, width=width, color=_BEFORE, label="before training")
    axes.step(
        [0, *places, 1],
        [after[0], *after, after[-1]],
        where="mid",
        color=_AFTER,
        linewidth=1.8,
        label="after training",
    )
    axes.fill_between(
        [0, *places, 1], [after[0], *after, after[-1]], step="mid", color=_AFTER, alpha=0.25
    )
    axes.set_title(title, fontsize=12, loc="left", fontweight="bold")
    axes.set_xlabel("importance (the factor of the normalisation)", fontsize=10)
    axes.set_xlim(0, 1)
    _cut(axes, [*zip(places, before, strict=True)], [*zip(places, after, strict=True)])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10, color=_GREY)
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)


def _cut(axes: Axes, *histograms: list[tuple[float, int]]) -> None:
    """Let a few bins that tower over all others run out at the top, with their counts: else nothing
    else can be seen.
    """
    heights = sorted((count for histogram in histograms for _, count in histogram), reverse=True)
    top = _ROOM * max(heights[min(4, len(heights) - 1)], 1)
    if heights[0] <= top:
        return
    axes.set_ylim(0, top)
    for histogram, colour in zip(histograms, (_GREY, _AFTER), strict=True):
        for place, count in histogram:
            if count > top:
                side = "left" if place < 0.5 else "right"
                shift = 8 if side == "left" else -8
                axes.annotate(
                    f"↑ {count}",
                    (place, top),
                    (shift, -10),
                    textcoords="offset points",
                    ha=side,
                    color=colour,
                    fontsize=10,
                )
