"""The paper's tables, published and measured: train where there is no checkpoint, trim, retrain
(tables.toml).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from niwaki import data
from niwaki.core.errors import CheckpointError, DataError, UnknownNameError
from niwaki.core.work import Engine, Workers
from niwaki.data import Dataset
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.line import Line
from niwaki.papers.mint.lines import lines
from niwaki.papers.mint.run import Cost, Run, Training
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml

Budget = Literal["full", "short", "quick"]
WORK = Path("niwaki-mint")  # where there is no other word


@RECIPES.register("mint")
@dataclass(frozen=True)
class MintRecipe(Recipe):
    """MNIST-MLP trained here; VGG-16, ResNet-56 and ResNet-50 from checkpoints, where there are
    any.

    Attributes:
        budget: "full" is what the tables say; "short" retrains for a few epochs, where the table
            says how many; "quick" takes some of the images for a few epochs,
            and trains a network whose
            checkpoint is missing: what comes out is no cell of the paper's table, and is said to be
                of a subset.
        epochs, tuning: of the training and of the retraining after the cut; None: as many as the
            budget has.
        seed: only this one of an experiment's; None: all.
        images: at most so many training images; None: as many as the budget has.
        engine, workers: who estimates.
    """

    budget: Budget = "full"
    epochs: int | None = None
    tuning: int | None = None
    seed: int | None = None
    images: int | None = None
    engine: Engine = "local"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.budget not in get_args(Budget):
            raise UnknownNameError("budget", self.budget, get_args(Budget))
        Workers(self.engine, self.workers)

    def lines(self) -> tuple[Line, ...]:
        return tuple(lines(tables()))

    def names(self) -> tuple[str, ...]:
        return tuple(tables())

    def cells(self, experiment: str) -> int:
        table = tables()[experiment]
        return len(table["rows"]) * len(self._seeds(table))

    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        table = tables()[experiment]
        how = self._said(table, places)
        try:
            dataset = data.load(table["data"], places.data_root)
            dataset.split("test")
            return self._outcome(experiment, table, dataset, places, say, how)
        except (DataError, CheckpointError) as error:
            return Outcome(how, missing=str(error))

    def cost(self, table: dict[str, Any], row: dict[str, Any], places: Places) -> Cost:
        """What a cell may take: the row's words (else the table's), those of the budget, and the
        user's; later ones count.
        """
        quick = {} if self.budget == "full" else table.get(self.budget, {})
        training = {
            "lr": 0.1,
            "batch": 128,
            **table.get("training", {}),
            **quick.get("training", {}),
        }
        tuning = {
            "lr": 0.2,
            "batch": 256,
            **row.get("tuning", table.get("tuning", {})),
            **quick.get("tuning", {}),
        }
        for part, epochs in ((training, self.epochs), (tuning, self.tuning)):
            part.update({} if epochs is None else {"epochs": epochs})
        return Cost(
            Training(**{"epochs": 40, **training}),
            Training(**tuning),
            self.images or quick.get("images"),
            places.limit or quick.get("test_images"),
            own=self.budget == "quick",
        )

    def _said(self, table: dict[str, Any], places: Places) -> str:
        """What a reader must know of how the cells come about."""
        cost, seeds = self.cost(table, table["rows"][0], places), self._seeds(table)
        epochs = sorted({self.cost(table, row, places).tuning.epochs for row in table["rows"]})
        parts = [
            table["setting"],
            f"{' or '.join(map(str, epochs))} epochs of retraining",
            f"median of {len(seeds)} seeds",
        ]
        if len(seeds) == 1:
            parts[-1] = f"seed {seeds[0]}"
        if cost.images is not None:
            parts.append(f"ON A SUBSET: {cost.images:,} training images")
        if cost.test_images is not None:
            parts.append(f"the first {cost.test_images:,} test images")
        if (
            cost.own
            and "checkpoint" in table
            and not places.checkpoint(table["checkpoint"]).is_file()
        ):
            parts.append(f"no checkpoint: trained here for {cost.training.epochs} epochs")
        return ", ".join(parts)

    def _seeds(self, table: dict[str, Any]) -> list[int]:
        return list(table["seeds"]) if self.seed is None else [self.seed]

    def _outcome(
        self,
        experiment: str,
        table: dict[str, Any],
        dataset: Dataset,
        places: Places,
        say: Say,
        how: str,
    ) -> Outcome:
        work, workers = places.work or WORK, Workers(self.engine, self.workers)
        cells: list[Cell] = []
        rows: list[dict[str, Any]] = []
        for row in table["rows"]:
            cost, runs = self.cost(table, row, places), []
            for seed in self._seeds(table):
                run = Run(
                    experiment, table, row, seed, cost, dataset, places, workers, work / self.budget
                ).outcome()
                runs.append({"experiment": experiment, "row": row["name"], **run})
                say(f"{experiment}: {row['name']}, seed {seed}: {run}")
            cells += _cells(experiment, table, row, runs, first=not cells)
            rows += runs
        return Outcome(how, tuple(cells), runs=tuple(rows))


def _cells(
    experiment: str,
    table: dict[str, Any],
    row: dict[str, Any],
    runs: list[dict[str, Any]],
    *,
    first: bool,
) -> list[Cell]:
    """One row's cells, medians of its seeds; the untrimmed network before those of the first."""
    cells = []
    if first and "baseline" in table:
        original = statistics.median(run["original"] for run in runs)
        cells.append(Cell(experiment, "–", 0.0, "original", table["baseline"], original))
    gone = statistics.median(run["gone"] for run in runs)
    accuracy = statistics.median(run["accuracy"] for run in runs)
    cells.append(Cell(experiment, "mint", gone, row["name"], row["published"], accuracy))
    if "published_kb" in row:
        stored = statistics.median(run["stored_kb"] for run in runs)
        cells.append(
            Cell(
                experiment, "mint", gone, f"{row['name']}: stored, kB", row["published_kb"], stored
            )
        )
    return cells


def tables() -> dict[str, Any]:
    """The paper's tables and their settings."""
    text = resources.files("niwaki.papers.mint").joinpath("tables.toml").read_text(encoding="utf-8")
    return read_toml(text)
