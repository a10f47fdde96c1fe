"""What the papers compare with: prune once, train what is left again, and hold the accuracy against
what was published (tables.toml); networks from checkpoints, or trained here with a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from niwaki import data
from niwaki.core.errors import CheckpointError, DataError, SettingError, UnknownNameError
from niwaki.papers.baselines.factored import FactorRow
from niwaki.papers.baselines.lines import lines
from niwaki.papers.baselines.run import BaselineRun, Cost, Row, Setup
from niwaki.papers.baselines.sparse import SparseRow
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.line import Line
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml

Budget = Literal["full", "short", "quick"]
WORK = Path("niwaki-baselines")  # where there is no other word


@RECIPES.register("baselines")
@dataclass(frozen=True)
class Baselines(Recipe):
    """Pruning Filters and other criteria from a checkpoint, SSS, GAL and OED with factors that are
    learned from there; Network Slimming and SSL on MNIST.

    Attributes:
        budget: "full" fine-tunes on all training images, "short" on all of them for a few epochs,
            "quick" on some of them; the setting says how many of each.
        epochs: of fine-tuning; None: as many as the budget has.
    """

    budget: Budget = "full"
    seed: int = 0
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.budget not in get_args(Budget):
            raise UnknownNameError("budget", self.budget, get_args(Budget))

    def lines(self) -> tuple[Line, ...]:
        return tuple(lines(tables()))

    def names(self) -> tuple[str, ...]:
        return tuple(tables())

    def cells(self, experiment: str) -> int:
        return len(tables()[experiment]["rows"])

    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        table = tables()[experiment]
        cost = self.cost(table)
        how = f"{table['setting']}; {cost}, seed {self.seed}"
        try:
            dataset = data.load(table["data"], places.data_root)
            dataset.split("test")
            return Outcome(how, tuple(self._cells(experiment, table, cost, dataset, places, say)))
        except (DataError, CheckpointError) as error:
            return Outcome(how, missing=str(error))

    def cost(self, table: dict[str, Any]) -> Cost:
        """What a cell may take.

        Raises:
            SettingError: the table has no such budget.
        """
        if self.budget not in table["budgets"]:
            known = ", ".join(table["budgets"])
            raise SettingError(f"this table has no budget {self.budget!r}; it has {known}")
        given = dict(table["budgets"][self.budget])
        return Cost(**given if self.epochs is None else {**given, "epochs": self.epochs})

    def _cells(
        self,
        experiment: str,
        table: dict[str, Any],
        cost: Cost,
        dataset: data.Dataset,
        places: Places,
        say: Say,
    ) -> list[Cell]:
        """The base, and what each row comes to before and after fine-tuning."""
        setup = Setup(cost, dataset, places, (places.work or WORK) / self.budget)
        cells: list[Cell] = []
        for entry in table["rows"]:
            row = _kind(entry)(experiment, self.budget, self.seed, table, entry)
            run = row.run(setup)
            if not cells:
                published = entry.get("published_base")
                cells.append(Cell(experiment, "–", 0.0, "original", published, run.base))
            cells += _of_row(run, entry["published"])
            say(f"{experiment}: {run.row}: {run.base:.2f} → {run.untuned:.2f} → {run.test:.2f}")
        return cells


def _kind(entry: dict[str, Any]) -> type[Row]:
    """Trained with a penalty, with factors, or pruned as it is."""
    if "penalty" in entry:
        return SparseRow
    return FactorRow if "factors" in entry else Row


def _of_row(run: BaselineRun, published: float) -> list[Cell]:
    gone = run.gone
    untuned = Cell(run.experiment, run.row, gone, "pruned", None, run.untuned)
    return [untuned, Cell(run.experiment, run.row, gone, "fine-tuned", published, run.test)]


def tables() -> dict[str, Any]:
    """The experiments by name."""
    text = resources.files("niwaki.papers.baselines").joinpath("tables.toml")
    return read_toml(text.read_text(encoding="utf-8"))
