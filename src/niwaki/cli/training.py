"""What `train` and `finetune` share: their words, and the run that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from niwaki.core.errors import SettingError
from niwaki.core.registry import Registry
from niwaki.data import Dataset
from niwaki.measure import evaluate
from niwaki.training import (
    Augment,
    Distillation,
    Feed,
    FeedSettings,
    History,
    RunFolder,
    TrainSettings,
    fit,
)
from niwaki.training._fit import ParameterGroups
from niwaki.training.loop import Penalty

Out = Annotated[
    Path,
    typer.Option(help="folder of the run: checkpoint, best weights, history, TensorBoard events"),
]
Epochs = Annotated[int, typer.Option(help="passes over the training split", min=1)]
Lr = Annotated[float, typer.Option(help="highest learning rate")]
TrainBatch = Annotated[int, typer.Option(help="images per step, of all processes together", min=1)]
Schedule = Annotated[
    str, typer.Option(help="learning rate over time: constant, cosine, multistep, one-cycle")
]
WeightDecay = Annotated[
    float, typer.Option(help="weight decay; biases and normalisation layers have none")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help=(
            "more of the training's settings: precision=bf16, ema=0.999, patience=10, "
            "label_smoothing=0.1"
        ),
    ),
]
AugmentWords = Annotated[
    str,
    typer.Option(
        help="augmentation: none, or pad=4,border=zero,flip=true; crop=0.08 for random-resized "
        "crops"
    ),
]
Missing = Annotated[
    str,
    typer.Option(
        help="what to do with a file that cannot be read: refuse (stop), or skip and count it"
    ),
]
Workers = Annotated[int, typer.Option(help="how many processes read image files ahead", min=0)]
Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker", help="where to log: tensorboard, wandb, mlflow, …; none to log nowhere"
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="continue the run in the folder, if there is one")
]
Every = Annotated[float, typer.Option(help="seconds between checkpoints")]
TrainLimit = Annotated[
    int | None, typer.Option(help="train on the first so many images only", min=1)
]

_SETTINGS: Registry[Any] = Registry("setting")
_SETTINGS.register("training")(TrainSettings)
_SETTINGS.register("augment")(Augment)


@dataclass(frozen=True)
class TrainWords:
    """What the user said of the training."""

    out: Path
    epochs: int
    lr: float
    batch_size: int
    schedule: str
    weight_decay: float
    more: Sequence[str]
    augment: str
    missing: str
    workers: int
    trackers: Sequence[str]
    resume: bool
    every: float
    limit: int | None
    seed: int

    @property
    def settings(self) -> TrainSettings:
        """The loop's settings."""
        stated = {
            "epochs": self.epochs,
            "lr": self.lr,
            "schedule": self.schedule,
            "weight_decay": self.weight_decay,
        }
        for word in self.more:
            if word.partition("=")[0].strip() in stated:
                raise SettingError(
                    f"--set {word!r} has an option of its own; write "
                    f"--{word.replace('_', '-').replace('=', ' ')}"
                )
        words = [f"{key}={value}" for key, value in {**stated, "seed": self.seed}.items()]
        settings: TrainSettings = _SETTINGS.build(f"training:{','.join([*words, *self.more])}")
        return settings

    def feed(self, dataset: Dataset, device: str) -> Feed:
        """Batches of the training split."""
        augment = None if self.augment == "none" else _SETTINGS.build(f"augment:{self.augment}")
        split = dataset.split("train")
        if self.limit is not None:
            split = split.take(split.labels.new_tensor(range(min(self.limit, len(split)))))
        settings = FeedSettings(
            self.batch_size,
            augment,
            self.seed,
            missing=self.missing,  # type: ignore[arg-type]  # it refuses other words
            workers=self.workers,
        )
        return Feed(split.to(device), settings)


def taken_out(more: Sequence[str]) -> tuple[list[str], str, float]:
    """The words of `--set` without schedule and weight_decay, and these two.

    >>> taken_out(["precision=bf16", "schedule=cosine"])
    (['precision=bf16'], 'cosine', 0.0001)
    """
    said = {"schedule": "multistep", "weight_decay": "1e-4"}
    rest = []
    for word in more:
        key, _, value = (part.strip() for part in word.partition("="))
        if key in said:
            said[key] = value
        else:
            rest.append(word)
    try:
        return rest, said["schedule"], float(said["weight_decay"])
    except ValueError:
        raise SettingError(f"weight_decay must be a number; got {said['weight_decay']!r}") from None


@dataclass(frozen=True)
class Parts:
    """What is trained, and what is added to its loss."""

    model: nn.Module
    dataset: Dataset
    device: str
    describes: dict[str, Any]
    penalty: Penalty | None = None
    distillation: Distillation | None = None
    parameter_groups: ParameterGroups | None = None


def run_training(words: TrainWords, parts: Parts) -> History:
    """Train, validating on the validation split after every epoch."""
    validation = parts.dataset.split("validation").to(parts.device)
    trackers = tuple(name for name in words.trackers if name != "none")
    folder = RunFolder(words.out, words.resume, words.every, trackers, parts.describes)
    return fit(
        parts.model,
        words.feed(parts.dataset, parts.device),
        settings=words.settings,
        validate=lambda network: evaluate(network, validation.batches(200)),
        penalty=parts.penalty,
        distillation=parts.distillation,
        parameter_groups=parts.parameter_groups,
        folder=folder,
    )


def as_settings(words: TrainWords) -> dict[str, Any]:
    """What a record says of the training."""
    return {
        **dataclasses.asdict(words.settings),
        "batch_size": words.batch_size,
        "augment": words.augment,
        "limit": words.limit,
    }
