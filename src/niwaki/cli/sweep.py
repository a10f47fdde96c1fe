"""niwaki sweep"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.sweep_board import live, show
from niwaki.cli.sweep_cell import run_cell
from niwaki.cli.sweep_words import Asked, asked_of
from niwaki.core.work import Workers
from niwaki.sweep import Grid, SweepFolder, run_cells
from niwaki.sweep.run import Pairs
from niwaki.sweep.search import search

Several = list[str] | None


def sweep(
    what: Annotated[
        list[str],
        typer.Argument(help="models as niwaki prune takes them, NAME@WEIGHTS; or one TOML file"),
    ],
    out: Annotated[
        Path, typer.Option(help="folder of the sweep; a second call goes on with what is not done")
    ],
    criterion: Annotated[Several, typer.Option(help="which units stay; one or more")] = None,
    compensation: Annotated[Several, typer.Option(help="repairs; one or more")] = None,
    budget: Annotated[
        Several, typer.Option(help="shares to remove, as 0.5 or macs=0.5; one or more")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="one or more", min=0, max=2**63 - 1)
    ] = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    calibration: options.Calibration = None,
    scope: Annotated[str | None, typer.Option(help="as niwaki prune has it")] = None,
    only: Annotated[Several, typer.Option(help="prune only layers named like this glob")] = None,
    skip: Annotated[Several, typer.Option(help="leave layers named like this glob")] = None,
    recovery: Annotated[Several, typer.Option(help="after every cut, as niwaki prune")] = None,
    evaluate: options.Evaluate = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a Ray cluster")] = "local",
    workers: Annotated[int, typer.Option(help="cells at a time", min=1)] = 1,
    timed: Annotated[
        bool | None,
        typer.Option("--timed", help="measure latency and peak memory too: a second or two a cell"),
    ] = None,
    front: Annotated[
        str | None, typer.Option(help="two measures whose Pareto front is marked: accuracy,macs")
    ] = None,
    search_: Annotated[
        Several, typer.Option("--search", help="a range to choose from: t=0.1..0.9, c=l1|l2")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="of --search", min=1)] = None,
) -> None:
    """Prune in all combinations of models, criteria, repairs, budgets and seeds, and compare them.

    niwaki sweep digits-cnn@digits.safetensors --data digits --criterion l1 --criterion l2
    --compensation none --compensation merge --budget 0.3 --budget macs=0.5 --out runs/sweep

    The same from a file, three cells at a time, and again after a kill:

      niwaki sweep sweep.toml --workers 3 --out runs/sweep

    Thirty settings of a repair, chosen on validation data by Optuna:

      niwaki sweep digits-cnn@digits.safetensors --data digits --compensation 'merge:threshold={t}'
        --search t=0.1..0.9 --trials 30 --out runs/search
    """
    said = {
        "criteria": criterion, "repairs": compensation, "budgets": budget, "seeds": seed,
        "data": data, "data_root": None if data_root is None else str(data_root),
        "calibration": calibration, "scope": scope, "only": only, "skip": skip,
        "recovery": recovery, "evaluate": evaluate, "device": device, "timed": timed,
        "front": front,
        "search": search_, "trials": trials,
    }  # fmt: skip
    asked = asked_of(what, said)
    hands = Workers(engine, workers)  # type: ignore[arg-type]  # it refuses others
    folder = SweepFolder(out, asked.common).checked()
    show(_all_of(asked, hands, folder), asked.front, folder)


def _all_of(asked: Asked, workers: Workers, folder: SweepFolder) -> Pairs:
    """The cells of the grid, or of all trials of the search."""

    def run(grid: Grid) -> Pairs:
        with live(asked.front) as watch:
            return run_cells(grid.cells(), folder, run_cell, workers=workers, watch=watch)

    if not asked.ranges:
        return run(asked.grid)
    best = search(asked.grid, asked.ranges, asked.trials, asked.front[0], run)
    said = ", ".join(f"{name}={value}" for name, value in best.values.items())
    typer.echo(f"best {asked.front[0]}: {best.value:.6g} with {said}")
    return best.pairs
