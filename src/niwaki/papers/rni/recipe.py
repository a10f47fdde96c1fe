"""Every cell of the paper's tables, trained here and held against what is published (tables.toml),
one by one.

A cell that has a record is not run again, and a run that was cut off goes on where it stopped: both
lie in the work folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from niwaki import data, models
from niwaki.core.errors import DataError, UnknownNameError
from niwaki.data import Dataset
from niwaki.measure import count_params
from niwaki.measure.macs import count_macs
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.line import Line
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml
from niwaki.papers.rni.experiment import (
    Setting,
    fresh,
    importances,
    pruned,
    test_accuracy,
    trained,
    tuned,
)
from niwaki.papers.rni.lines import lines
from niwaki.papers.rni.runs import CellRun, read
from niwaki.training import History, RunFolder

Budget = Literal["full", "quick"]
WORK = Path("niwaki-rni")  # where there is no other word


@RECIPES.register("rni")
@dataclass(frozen=True)
class Rni(Recipe):
    """VGG-16 and ResNet-56 on CIFAR-10 and CIFAR-100, trained by RNI, L1 and UCS, pruned by half
    and by nine tenths.

    Attributes:
        budget: "full" is the paper's 160 epochs twice, "quick" a fraction of the epochs and images,
            which the setting says.
        method: only this one; None: all.
    """

    budget: Budget = "full"
    seed: int = 0
    method: Literal["l1", "rni", "ucs"] | None = None

    def __post_init__(self) -> None:
        if self.budget not in get_args(Budget):
            raise UnknownNameError("budget", self.budget, get_args(Budget))

    def lines(self) -> tuple[Line, ...]:
        return tuple(lines(tables()))

    def names(self) -> tuple[str, ...]:
        return tuple(tables())

    def cells(self, experiment: str) -> int:
        table = tables()[experiment]
        return len(table["removed"]) * sum(self.method in (None, name) for name in table["methods"])

    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        table = tables()[experiment]
        cost = table["budgets"][self.budget]
        images = f"{cost['limit']:,} training images" if "limit" in cost else "all training images"
        setting = (
            f"{table['data']}, {self.budget} budget: {cost['epochs']} + {cost['tuning']} epochs, "
            f"{images}, seed {self.seed}"
        )
        try:
            dataset = data.load(table["data"], places.data_root)
            dataset.split("test")
        except DataError as error:
            return Outcome(setting, missing=str(error))
        cells = []
        for method, given in table["methods"].items():
            if self.method in (None, method):
                for number, run in enumerate(self._cells(experiment, method, dataset, places)):
                    published = given.get("published", [None] * len(table["removed"]))[number]
                    done = "as trained" if run.removed == 0 else "fine-tuned"
                    cells.append(Cell(experiment, method, run.removed, done, published, run.test))
                    say(f"{experiment}: {method}, {run.removed:.0%} removed: {run.test:.2f}")
        return Outcome(setting, tuple(cells))

    def _cells(
        self, experiment: str, method: str, dataset: Dataset, places: Places
    ) -> Iterator[CellRun]:
        """One method's cells, in the order of the shares removed."""
        table = tables()[experiment]
        given, cost = table["methods"][method], table["budgets"][self.budget]
        setting = Setting(
            table["arch"],
            method,  # type: ignore[arg-type]  # a key of the table
            given.get("reg", 0.0),
            given.get("b", 0.0),
            cost["epochs"],
            seed=self.seed,
            device=places.device,
            precision="bf16" if places.device.startswith("cuda") else "no",
            limit=cost.get("limit"),
            rule=table.get("rule", "quantile"),
            decay=table.get("decay", "all"),
        )
        work = _Work(
            (places.work or WORK) / f"{experiment}-{method}-{self.budget}-seed{self.seed}",
            self,
            experiment,
            setting,
        )
        for share in table["removed"]:
            again = dataclasses.replace(setting, epochs=cost["tuning"])
            yield work.trained(dataset) if share == 0 else work.tuned(dataset, again, share)


@dataclass
class _Work:
    """The cells of one trained network, and the folder that they are kept in."""

    folder: Path
    recipe: Rni
    experiment: str
    setting: Setting
    model: nn.Module | None = None

    def trained(self, dataset: Dataset) -> CellRun:
        """The network from scratch."""
        run = self._found(0.0)
        if run:
            return run
        model, history = self._network(dataset)
        run = self._record(model, history, dataset, 0.0, self.setting)
        started = _counts(fresh(self.setting, dataset))
        return self._written(
            dataclasses.replace(run, importances=_counts(model), importances_before=started)
        )

    def tuned(self, dataset: Dataset, setting: Setting, share: float) -> CellRun:
        """The network, pruned and trained again."""
        run = self._found(share)
        if run:
            return run
        model, _ = self._network(dataset)
        result = pruned(model, setting, dataset, share)
        untuned = result.record.after.accuracy
        assert untuned is not None
        history = tuned(result.model, setting, dataset, self._kept(f"tuned-{round(100 * share)}"))
        run = self._record(result.model, history, dataset, share, setting)
        kept = {name: len(entry.units) for name, entry in result.plan.items()}
        run = dataclasses.replace(
            run, untuned=round(100 * untuned, 4), kept=kept, importances=_counts(result.model)
        )
        return self._written(run)

    def _network(self, dataset: Dataset) -> tuple[nn.Module, History]:
        return trained(self.setting, dataset, self._kept("trained"))

    def _kept(self, name: str) -> RunFolder:
        return RunFolder(self.folder / name, resume=True)

    def _found(self, share: float) -> CellRun | None:
        method, seed = self.setting.method, self.setting.seed
        name = f"{self.experiment}-{method}-{round(100 * share)}-{self.recipe.budget}-seed{seed}"
        path = self.folder.parent / "records" / f"{name}.json"
        return read(path) if path.is_file() else None

    def _written(self, run: CellRun) -> CellRun:
        run.write(self.folder.parent / "records")
        return run

    def _record(
        self, model: nn.Module, history: History, dataset: Dataset, share: float, setting: Setting
    ) -> CellRun:
        best = history.best
        validation = best.validation.accuracy if best and best.validation else 0.0
        return CellRun(
            experiment=self.experiment,
            method=setting.method,
            removed=share,
            seed=setting.seed,
            budget=self.recipe.budget,
            test=round(100 * test_accuracy(model, dataset), 4),
            validation=round(100 * validation, 4),
            params=count_params(model),
            macs=count_macs(model, models.example_inputs(model, batch=1)),
            settings=dataclasses.asdict(setting),
            curve=[
                [e.loss, e.accuracy, e.validation.accuracy if e.validation else -1.0]
                for e in history.epochs
            ],
            seconds=round(history.seconds, 1),
            notes=[*history.notes, *([history.stopped] if history.stopped else [])],
        )


def _counts(model: nn.Module) -> list[int]:
    """How many filters have which importance."""
    counts: list[int] = (
        torch.histc(importances(model).clamp(0, 1), bins=50, min=0, max=1).int().tolist()
    )
    return counts


def tables() -> dict[str, Any]:
    """The experiments by name."""
    return read_toml(
        resources.files("niwaki.papers.rni").joinpath("tables.toml").read_text(encoding="utf-8")
    )
