"""niwaki reproduce"""

from __future__ import annotations

import dataclasses
import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.console import messages, results, table
from niwaki.cli.pace import Pace
from niwaki.core.errors import DataError, SettingError
from niwaki.core.records import write_text_atomic
from niwaki.papers.cell import COLUMNS, Outcome, as_record, cells_as_rows
from niwaki.papers.line import COLUMNS as OVERVIEW
from niwaki.papers.line import grouped
from niwaki.papers.recipe import RECIPES, Places, overview


def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(help="neuron-merging, mint, rni, baselines; with settings: rni:seed=1"),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option("--list", help="list all rows, published and measured so far; nothing is run"),
    ] = False,
    data_root: options.DataRoot = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="folder of the paper's checkpoints; if left out, checkpoints/ beside the data root"
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="how long to train: full (as published) or quick")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="folder for what is trained; a second call continues from it"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="experiment to run; may be repeated; all if left out")
    ] = None,
    limit: options.Limit = None,
    device: options.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="file for all numbers as JSON, with versions and hardware")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="print only that JSON on standard output")
    ] = False,
) -> None:
    """Run a paper's experiments and print published and measured numbers side by side.

    Cells run one after the other, each said as it ends, with the time that is left. With --work the
    same command after a kill goes on with what is not done.

    niwaki reproduce neuron-merging --data-root data --checkpoints checkpoints

    niwaki reproduce neuron-merging --data-root data --only lenet-300-100

    niwaki reproduce rni --data-root data --only vgg16-cifar10 --device cuda --work runs/rni

    niwaki reproduce --list
    """
    if list_:
        _show_all(() if paper is None else (paper,), json)
        return
    if paper is None:
        raise SettingError(f"name a paper: {', '.join(sorted(RECIPES))}; or --list all their rows")
    if budget is not None:
        paper += f"{',' if ':' in paper else ':'}budget={budget}"
    recipe = RECIPES.build(paper)
    outcomes: dict[str, Outcome] = {}
    asked = recipe.experiments(only)
    pace = Pace(sum(map(recipe.cells, asked)), messages.print)
    for experiment in asked:
        outcome = recipe.run(experiment, Places(data_root, checkpoints, device, limit, work), pace)
        outcomes[experiment] = outcome
        if outcome.missing:
            pace.skip(recipe.cells(experiment))
            messages.print(
                f"{experiment} was not run: {outcome.missing}", style="yellow", markup=False
            )
            continue
        if not json:
            results.print(
                table(f"{experiment}: {outcome.setting}", COLUMNS, cells_as_rows(outcome.cells))
            )
    if all(outcome.missing for outcome in outcomes.values()):
        raise DataError(f"nothing of {paper} was run; see --data-root, --checkpoints and --work")
    text = as_record(paper, outcomes, limit)
    if out is not None:
        write_text_atomic(out, text)
    if json:
        typer.echo(text, nl=False)


def _show_all(papers: tuple[str, ...], json: bool) -> None:
    """The overview as tables, or as JSON."""
    lines = overview(papers)
    if json:
        plain = [dataclasses.asdict(line) for line in lines]
        typer.echo(json_text.dumps(plain, indent=2, ensure_ascii=False))
        return
    for title, counts, part in grouped(lines):
        rows = [line.cells() for line in part]
        results.print(table(f"{title} (share of: {counts})", OVERVIEW, rows, wrap=True))
