"""niwaki reproduce"""

from __future__ import annotations

import json as json_library
from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.console import messages, results, table
from niwaki.papers import RECIPES, Cell, Places, cells_as_rows
from niwaki.papers.cell import COLUMNS


def reproduce(
    paper: Annotated[str, typer.Argument(help="neuron-merging")],
    data_root: options.DataRoot = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="folder of the paper's checkpoints; without it, checkpoints/ beside the data root")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="experiments to run; may be repeated; without it, all")] = None,
    limit: options.Limit = None,
    device: options.Device = "cpu",
    json: Annotated[bool, typer.Option("--json", help="print all cells as JSON on standard output")] = False,
) -> None:
    """Run a paper's experiments and print published and measured numbers side by side.

    niwaki reproduce neuron-merging --data-root data --checkpoints checkpoints

    niwaki reproduce neuron-merging --data-root data --only lenet-300-100
    """
    recipe = RECIPES.build(paper)
    cells: list[Cell] = []
    for experiment in recipe.experiments(only):
        outcome = recipe.run(experiment, Places(data_root, checkpoints, device, limit), messages.print)
        if outcome.missing:
            messages.print(f"{experiment} was not run: {outcome.missing}", style="yellow", markup=False)
            continue
        cells += outcome.cells
        if not json:
            results.print(table(f"{experiment}: {outcome.setting}", COLUMNS, cells_as_rows(outcome.cells)))
    if json:
        typer.echo(json_library.dumps([cell.as_dict() for cell in cells], indent=2))
