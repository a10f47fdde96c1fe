"""One cell of a table with one seed: a trained network, trimmed and trained again.

The epoch is picked on a validation split of the training images, never on the test images. What was
trained, the layers that were scored and the numbers of the cell are kept, so that a second call
goes on from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from niwaki import models
from niwaki.core.records import write_text_atomic
from niwaki.core.work import Workers
from niwaki.data import Dataset
from niwaki.io.weights import load_weights
from niwaki.measure import Evaluation, evaluate
from niwaki.methods.base.evidence import Calibration
from niwaki.methods.mint._layer_dependencies import Estimation
from niwaki.methods.mint.activations import Sampling
from niwaki.methods.mint.blocks import CutOff
from niwaki.methods.mint.by_layer import PairSettings
from niwaki.papers.recipe import Places
from niwaki.pruning.result import Result
from niwaki.pruning.trimming import trim
from niwaki.training import Augment, Distillation, Feed, FeedSettings, RunFolder, TrainSettings, fit
from niwaki.training.settings import Schedule

Hold = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Training:
    """How a network is trained, or what is left of it again.

    Attributes:
        distil: share of the loss that is to answer as the untrimmed network does, softened by the
            temperature.
        dropout: of the network's own dropout layers; None: as it has them.
        input_dropout: of the pixels.
        shift: pixels that grey images are shifted by at most; colour images are cropped and
            mirrored as usual.
    """

    epochs: int
    lr: float
    batch: int
    schedule: Schedule = "multistep"
    milestones: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    distil: float = 0.0
    temperature: float = 4.0
    dropout: float | None = None
    input_dropout: float = 0.0
    shift: int = 0

    def settings(self, seed: int) -> TrainSettings:
        """As `niwaki.training.fit` takes them."""
        return TrainSettings(
            self.epochs,
            self.lr,
            weight_decay=1e-4,
            schedule=self.schedule,
            milestones=tuple(self.milestones),
            label_smoothing=self.label_smoothing,
            clip_norm=self.clip_norm,
            seed=seed,
        )


@dataclass(frozen=True)
class Cost:
    """How much of everything a run may take.

    Attributes:
        images, test_images: at most so many to train on, and to judge by; None: all.
        own: train the network here where its checkpoint is missing.
    """

    training: Training
    tuning: Training
    images: int | None = None
    test_images: int | None = None
    own: bool = False


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        table, row: of tables.toml.
        work: folder of what is kept.
    """

    experiment: str
    table: dict[str, Any]
    row: dict[str, Any]
    seed: int
    cost: Cost
    dataset: Dataset
    places: Places
    workers: Workers
    work: Path

    def outcome(self) -> dict[str, Any]:
        """The numbers of this cell: from its file, or made now."""
        words = [self.experiment, self.row["name"], self.row["params"], self.cost]
        name = "".join(
            c if c.isalnum() else "-"
            for c in f"{self.experiment}-{self.row['name']}-seed{self.seed}"
        )
        path = self.work / "cells" / f"{name}.json"
        asked = json.loads(
            json.dumps([dataclasses.asdict(word) if word is self.cost else word for word in words])
        )
        if path.is_file():
            outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if outcome.pop("asked", None) == asked:
                return outcome
        made = {"seed": self.seed, **self._made()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps({"asked": asked, **made}, indent=2) + "\n")
        return made

    def _made(self) -> dict[str, Any]:
        model = self._original()
        validated: list[float] = []

        def retrain(masked: nn.Module, hold: Hold) -> None:
            tuning = self._training_run(self.cost.tuning, self.experiment, self.row)
            validated.append(self._fitted(masked, self.cost.tuning, tuning, hold, model))

        estimation = Estimation(
            self.row["groups"],
            self.row.get("child_groups"),
            by_layer={
                layer: PairSettings(**own) for layer, own in self.table.get("by_layer", {}).items()
            },
            sampling=Sampling(self.row["per_class"]),
            workers=self.workers,
            folder=self.work / "layers",
        )
        train = self.dataset.split("train").to(self.places.device)
        test = self.dataset.split("test").to(self.places.device)
        result = trim(
            model,
            models.example_inputs(model),
            cut_off=CutOff(
                params=self.row["params"],
                upper_limit=self.table["upper_limit"],
                fed=self.table.get("fed", False),
                limits=self.table.get("limits", {}),
            ),
            calibration=Calibration.labelled(lambda: train.batches(1000)),
            estimation=estimation,
            only=self.table["only"],
            skip=self.table.get("skip", []),
            retrain=retrain,
            evaluate=partial(test.batches, 500, limit=self.cost.test_images),
            seed=self.seed,
        )
        return _numbers(result, validated[0])

    def _original(self) -> nn.Module:
        """The trained network: from a checkpoint, from an earlier call, or trained now."""
        torch.manual_seed(self.seed)
        model = models.build(self.table["model"], classes=self.dataset.classes).to(
            self.places.device
        )
        given = (
            self.places.checkpoint(self.table["checkpoint"]) if "checkpoint" in self.table else None
        )
        if given is not None and (given.is_file() or not self.cost.own):
            load_weights(model, given)
            return model.eval()
        cost = self.cost.training
        words = [self.table["model"], cost.epochs, self.cost.images or "all"]
        name = "-".join("".join(c if c.isalnum() else "_" for c in str(word)) for word in words)
        path = self.work / f"{name}-seed{self.seed}.safetensors"
        if path.is_file():
            load_weights(model, path)
            return model.eval()
        self._fitted(model, cost, self._training_run(cost))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu() for name, tensor in model.state_dict().items()}, str(path))
        return model.eval()

    def _training_run(self, how: Training, *more: Any) -> RunFolder:
        """Where a training is kept, named by all that it depends on; a killed one goes on."""
        model, cost = self.table["model"], self.cost
        asked = [model, self.seed, cost.images, cost.test_images, dataclasses.asdict(how), *more]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        return RunFolder(self.work / "training" / key, resume=True, trackers=())

    def _fitted(
        self,
        model: nn.Module,
        how: Training,
        folder: RunFolder,
        hold: Hold | None = None,
        teacher: nn.Module | None = None,
    ) -> float:
        """Train in place; validation accuracy of the epoch that is kept."""
        device, limit = self.places.device, self.cost.images
        train, held_out = self.dataset.split("train"), self.dataset.split("validation").to(device)
        if limit is not None:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))
            train = train.take(order[:limit])
        colour = self.dataset.input_shape[0] == 3
        moved = (
            Augment() if colour else Augment(how.shift, "zero", flip=False) if how.shift else None
        )

        def validate(network: nn.Module) -> Evaluation:
            return evaluate(network, held_out.batches(1000, limit=self.cost.test_images))

        def drop_pixels(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (nn.functional.dropout(given[0], how.input_dropout, module.training),)

        for module in model.modules():
            if isinstance(module, nn.Dropout) and how.dropout is not None:
                module.p = how.dropout
        dropping = model.register_forward_pre_hook(drop_pixels)
        try:
            history = fit(
                model,
                Feed(train.to(device), FeedSettings(how.batch, augment=moved, seed=self.seed)),
                settings=how.settings(self.seed),
                validate=validate,
                after_step=hold,
                distillation=Distillation(teacher, how.distil, how.temperature)
                if teacher is not None and how.distil
                else None,
                folder=folder,
            )
        finally:
            dropping.remove()
        best = history.best  # none, where no epoch was better than what it came with
        return (
            best.validation.accuracy
            if best is not None and best.validation is not None
            else validate(model).accuracy
        )


def _numbers(result: Result, validated: float) -> dict[str, Any]:
    result = result.measured()
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
