"""A picture of how much each group minds losing units."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from niwaki.core.errors import MissingExtraError
from niwaki.core.records import write_bytes_atomic

NAMED = 7  # of the groups that mind most


def sensitivity_figure(
    ratios: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    measure: str,
) -> None:
    """Draw one line a group against the ratio (%), as a PNG; the few that mind most are named and
    coloured.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: `path` cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    sign = 1 if measure == "residual" else -1
    order = sorted(curves, key=lambda name: -sign * sum(curves[name]))
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    percent = [100 * ratio for ratio in ratios]
    for name in order[NAMED:]:
        axes.plot(percent, [100 * value for value in curves[name]], color="#BBBBBB", linewidth=1)
    for name, colour, marker in zip(order, colours, "os^DvPX", strict=False):
        axes.plot(
            percent,
            [100 * value for value in curves[name]],
            color=colour,
            marker=marker,
            label=name,
        )
    axes.set_xlabel("units of the group removed (%)")
    axes.set_ylabel(
        "lost of what its consumers read (%)" if measure == "residual" else "accuracy (%)"
    )
    axes.grid(color="#DDDDDD")
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes_atomic(Path(path), buffer.getvalue())
