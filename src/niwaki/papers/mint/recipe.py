"""The paper's tables, published and measured: train where there is no checkpoint, trim, retrain (tables.toml).

What is trained lies in the work folder, with one small JSON file a cell and seed: a second call goes on from it. The epoch
is picked on a validation split of the training images, never on the test images.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from niwaki import data, models
from niwaki.checkpoint import load_weights
from niwaki.criteria import Estimation
from niwaki.criteria.activations import Sampling
from niwaki.criteria.spread import Engine, Workers
from niwaki.data import Dataset
from niwaki.errors import CheckpointError, DataError
from niwaki.evidence import Calibration
from niwaki.measure import Evaluation, evaluate
from niwaki.papers.cell import Cell, Outcome
from niwaki.papers.recipe import RECIPES, Places, Recipe, Say, read_toml
from niwaki.records import write_text_atomic
from niwaki.selection.blocks import CutOff
from niwaki.training import Augment, Distillation, Feed, FeedSettings, TrainSettings, fit
from niwaki.trim import Trimmed, trim

BATCH, LR = 128, 0.1
TUNING_BATCH, TUNING_LR = 256, 0.2
WORK = Path("niwaki-mint")  # where there is no other word


@RECIPES.register("mint")
@dataclass(frozen=True)
class MintRecipe(Recipe):
    """MNIST-MLP trained here; VGG-16, ResNet-56 and ResNet-50 from checkpoints, where there are any.

    Attributes:
        epochs, tuning: of the training and of the retraining after the cut; None: as many as the table says.
        seed: only this one of an experiment's; None: all.
        images: at most so many training images, for a quick look; None: all.
        engine, workers: who estimates.
        distil: how much of the retraining's loss is to answer as the untrimmed network does; the paper has none of it.
    """

    epochs: int = 40
    tuning: int | None = None
    seed: int | None = None
    images: int | None = None
    engine: Engine = "local"
    workers: int = 1
    distil: float = 0.0

    def names(self) -> tuple[str, ...]:
        return tuple(tables())

    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        table = tables()[experiment]
        seeds = self._seeds(table)
        how = f"{table['setting']}; {self.tuning or table['tuning']} epochs of retraining, median of {len(seeds)} seeds"
        how += f", {self.distil:g} of the loss by distillation" if self.distil else ""
        how += f", {self.images:,} training images" if self.images else ""
        try:
            dataset = data.load(table["data"], places.data_root)
            dataset.split("test")
            cells = self._cells(experiment, table, dataset, places, say)
        except (DataError, CheckpointError) as error:
            return Outcome(how, missing=str(error))
        return Outcome(how, cells)

    def _seeds(self, table: dict[str, Any]) -> list[int]:
        return list(table["seeds"]) if self.seed is None else [self.seed]

    def _cells(self, experiment: str, table: dict[str, Any], dataset: Dataset, places: Places, say: Say) -> tuple[Cell, ...]:
        cells = []
        for row in table["rows"]:
            runs = []
            for seed in self._seeds(table):
                runs.append(_Run(self, experiment, table, row, seed, dataset, places).outcome())
                say(f"{experiment}: {row['name']}, seed {seed}: {runs[-1]}")
            if "baseline" in table:
                first = statistics.median(run["original"] for run in runs)
                cells.append(Cell(experiment, "–", 0.0, "original", table["baseline"], first))
            gone = statistics.median(run["gone"] for run in runs)
            accuracy = statistics.median(run["accuracy"] for run in runs)
            cells.append(Cell(experiment, "mint", gone, row["name"], row["published"], accuracy))
            if "published_kb" in row:
                stored = statistics.median(run["stored_kb"] for run in runs)
                cells.append(Cell(experiment, "mint", gone, "stored, kB", row["published_kb"], stored))
        return tuple(cells)


def tables() -> dict[str, Any]:
    """The paper's tables and their settings."""
    text = resources.files("niwaki.papers.mint").joinpath("tables.toml").read_text(encoding="utf-8")
    return read_toml(text)


@dataclass(frozen=True)
class _Run:
    """One cell with one seed."""

    recipe: MintRecipe
    experiment: str
    table: dict[str, Any]
    row: dict[str, Any]
    seed: int
    dataset: Dataset
    places: Places

    @property
    def work(self) -> Path:
        return self.places.work or WORK

    def outcome(self) -> dict[str, Any]:
        """The numbers of this cell: from its file, or made now."""
        recipe, tuning = self.recipe, self.recipe.tuning or self.table["tuning"]
        words = [self.experiment, self.row["name"], self.row["params"], recipe.epochs, tuning, recipe.images, recipe.distil]
        text = "-".join(str(word) for word in [*words, self.places.limit, f"seed{self.seed}"])
        path = self.work / "cells" / ("".join(c if c.isalnum() or c in ".-" else "_" for c in text) + ".json")
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        made = self._made()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(made, indent=2) + "\n")
        return made

    def _made(self) -> dict[str, Any]:
        model = self._original()
        validated: list[float] = []

        def retrain(masked: nn.Module, hold: Callable[[nn.Module], None]) -> None:
            teacher = Distillation(model, self.recipe.distil) if self.recipe.distil else None
            for module in masked.modules():
                if isinstance(module, nn.Dropout) and "dropout" in self.row:
                    module.p = self.row["dropout"]
            settings = self._settings(self.recipe.tuning or self.table["tuning"], lr=TUNING_LR)
            validated.append(self._fitted(masked, settings, TUNING_BATCH, self.row.get("shift", 0), hold, teacher))

        estimation = Estimation(
            self.row["groups"],
            sampling=Sampling(self.row["per_class"]),
            workers=Workers(self.recipe.engine, self.recipe.workers),
            folder=self.work / "layers",
        )
        train = self.dataset.split("train").to(self.places.device)
        result = trim(
            model,
            models.example_inputs(model),
            cut_off=CutOff(params=self.row["params"], upper_limit=self.table["upper_limit"]),
            calibration=Calibration.labelled(lambda: train.batches(1000)),
            estimation=estimation,
            only=self.table["only"],
            retrain=retrain,
            data=lambda: self.dataset.split("test").to(self.places.device).batches(500, limit=self.places.limit),
            seed=self.seed,
        )
        return _numbers(result, validated[0])

    def _original(self) -> nn.Module:
        """The trained network: from a checkpoint, from an earlier call, or trained now."""
        torch.manual_seed(self.seed)
        model = models.build(self.table["model"], classes=self.dataset.classes).to(self.places.device)
        if "checkpoint" in self.table:
            load_weights(model, self.places.checkpoint(self.table["checkpoint"]))
            return model.eval()
        images = self.recipe.images or "all"
        path = self.work / f"{self.table['model']}-{self.recipe.epochs}-{images}-seed{self.seed}.safetensors"
        if path.is_file():
            load_weights(model, path)
            return model.eval()
        self._fitted(model, self._settings(self.recipe.epochs, lr=LR), BATCH)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu() for name, tensor in model.state_dict().items()}, str(path))
        return model.eval()

    def _settings(self, epochs: int, *, lr: float) -> TrainSettings:
        return TrainSettings(epochs, lr, weight_decay=1e-4, schedule="multistep", seed=self.seed)

    def _fitted(
        self,
        model: nn.Module,
        settings: TrainSettings,
        batch: int,
        shift: int = 0,
        hold: Callable[[nn.Module], None] | None = None,
        teacher: Distillation | None = None,
    ) -> float:
        """Train on images that are shifted by up to so many pixels; validation accuracy of the epoch that is kept."""
        device, limit = self.places.device, self.recipe.images
        train = self.dataset.split("train")
        if limit is not None:
            train = train.take(torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))[:limit])
        held_out = self.dataset.split("validation").to(device)
        moved = Augment() if self.dataset.input_shape[0] == 3 else Augment(shift, "zero", flip=False) if shift else None
        feed = Feed(train.to(device), FeedSettings(batch, augment=moved, seed=self.seed))

        def validate(network: nn.Module) -> Evaluation:
            return evaluate(network, held_out.batches(1000))

        history = fit(model, feed, settings=settings, validate=validate, after_step=hold, distillation=teacher)
        best = history.epochs[history.best_epoch - 1].validation if history.best_epoch else None
        return best.accuracy if best is not None else evaluate(model, held_out.batches(1000)).accuracy


def _numbers(result: Trimmed, validated: float) -> dict[str, Any]:
    before, after = result.record.before, result.record.after
    assert before.accuracy is not None
    assert after.accuracy is not None
    return {
        "original": round(100 * before.accuracy, 4),
        "accuracy": round(100 * after.accuracy, 4),
        "validation": round(100 * validated, 4),
        "gone": round(result.params_gone, 6),
        "stored_kb": sum(left for _, left in result.stored.values()) / 1000,
        "dense_kb": sum(full for full, _ in result.stored.values()) / 1000,
        "params": [before.params, after.params],
        "channels": {name: len(units) for name, units in result.plan.kept.items()},
        "seconds": {name: round(value, 1) for name, value in result.record.seconds.items()},
        "latency_ms": [round(before.latency_ms, 4), round(after.latency_ms, 4)],
        "notes": list(result.record.notes),
    }
