"""The dependency of every group of a child on every group of its parent as a heat map, with what
was cut drawn on it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from niwaki.core.blocks import LayerBlocks
from niwaki.core.errors import MissingExtraError
from niwaki.methods.mint._layer_dependencies import Dependency

WIDTH = 5.2  # inches
MARK = 0.32  # half of a cut block's cross, in blocks
NUMBERS = 12  # groups a side up to which every value is written out, and what is cut crossed out


def draw_dependencies(
    dependency: Dependency, path: str | Path, blocks: LayerBlocks | None = None
) -> Path:
    """Draw one pair of layers to a file.

    Args:
        path: ends in .png, .svg or .pdf; its folder is made where it is not there.
        blocks: which blocks stay; those that go are crossed out, or faded where there are many.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    values = dependency.values
    children, parents = values.shape
    figure = figures.Figure(
        figsize=(WIDTH, 1.3 + (WIDTH - 1.4) * min(max(children / parents, 0.35), 2)),
        layout="constrained",
    )
    axes = figure.subplots()
    image = axes.imshow(
        values.numpy(), cmap="YlGnBu", vmin=0, vmax=max(float(values.max()), 1e-9), aspect="auto"
    )
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("I(child; parent | other parents)", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)
    if max(children, parents) <= NUMBERS:
        _write_values(axes, dependency, float(values.max()))
    title = (
        dependency.pair.name
        if len(dependency.pair.name) <= 44
        else f"{dependency.pair.child} and what it reads"
    )
    if blocks is not None:
        cut = torch.ones(children, parents, dtype=torch.bool)
        for row, column in blocks.kept:
            cut[row, column] = False
        how = _cross_out(axes, cut) if max(children, parents) <= NUMBERS else _fade(axes, cut)
        title += f": {int(cut.sum())} of {children * parents} blocks cut ({how})"
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(f"groups of the {len(dependency.parent_group)} parent units", fontsize=8)
    axes.set_ylabel(f"groups of the {len(dependency.child_group)} child units", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    return Path(path)


def _cross_out(axes: Any, cut: Tensor) -> str:
    for row, column in cut.nonzero().tolist():
        for sign in (-1, 1):
            axes.plot(
                [column - MARK, column + MARK],
                [row - sign * MARK, row + sign * MARK],
                color="#b3432b",
                lw=0.9,
            )
    return "crossed out"


def _fade(axes: Any, cut: Tensor) -> str:
    """Lay white over what is cut: crosses would hide a large matrix."""
    cover = torch.ones(*cut.shape, 4)
    cover[..., 3] = 0.72 * cut
    axes.imshow(cover.numpy(), aspect="auto")
    return "faded"


def _write_values(axes: Any, dependency: Dependency, highest: float) -> None:
    for row, line in enumerate(dependency.values.tolist()):
        for column, value in enumerate(line):
            color = "white" if value > 0.6 * highest else "#333333"
            axes.text(
                column,
                row - 0.28,
                f"{value:.2f}".lstrip("0") or "0",
                ha="center",
                va="center",
                size=6,
                color=color,
            )
