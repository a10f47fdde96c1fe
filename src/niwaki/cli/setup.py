"""What several subcommands need: a model, its data, and inputs to trace it on, out of the user's
words.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from niwaki import io as checkpoint
from niwaki import models
from niwaki.cli.console import messages
from niwaki.cli.own_code import OwnData, data_of, data_words
from niwaki.cli.voice import voice
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.records import Record
from niwaki.data import Dataset
from niwaki.methods.base.evidence import Calibration
from niwaki.running import Inputs, record


@dataclass(frozen=True)
class Words:
    """What the user said of the model and its data."""

    model: str
    weights: Path | None = None
    data: str | None = None
    data_root: Path | None = None
    split: str = "test"
    batch_size: int = 200
    limit: int | None = None
    input_shape: str | None = None
    device: str = "cpu"
    seed: int = 0
    calibration: int | None = None
    judged: bool = True  # accuracy is wanted; not where a function of the user's judges


@dataclass(frozen=True)
class Setup:
    """The objects that the words stand for.

    Attributes:
        batches: fresh batches of the chosen split, None without data.
        calibration: some training inputs with their class numbers, where the user asked for them.
        settings: what the record says of all this.
        record: of the pruned network, where the model is a folder that niwaki wrote.
        dataset: where the user named one.
    """

    model: nn.Module
    inputs: Inputs
    batches: Callable[[], Iterable[tuple[Tensor, Tensor]]] | None
    settings: dict[str, Any]
    record: Record | None = None
    calibration: Calibration | None = None
    dataset: Dataset | None = None


def set_up(words: Words) -> Setup:
    """Read the data, build the model, load its weights, and move all to the device."""
    device = usable_device(words.device)
    words, data = _read(words)
    dataset = data if isinstance(data, Dataset) else None
    torch.manual_seed(words.seed)
    record = None
    if is_artefact(words.model):
        model = checkpoint.load(words.model, trust=voice.trust)
        record = checkpoint.read_record(words.model)
        factory = models.provenance(model).get("arguments", {})
    else:
        if Path(words.model).is_dir() and words.model not in models.available():
            raise SettingError(
                f"{words.model} is a folder without a plan.json, so niwaki did not write it; name "
                "one that it wrote"
            )
        factory = _factory_arguments(dataset)
        model = models.build(words.model, **factory)
        if words.weights is None:
            messages.print(f"no --weights: {words.model} has fresh random weights", style="yellow")
    if words.weights is not None:
        checkpoint.load_weights(model, words.weights)
    model = model.to(device).eval()
    settings = {
        "model": words.model if record is None else record.settings.get("model"),
        "factory": factory,
        "weights": str(words.weights) if words.weights else None,
        "data": words.data,
        "split": words.split if dataset else None,
        "limit": words.limit,
        "calibration": words.calibration,
        "device": str(device),
    }
    if isinstance(data, OwnData):
        settings["split"] = words.split
        return Setup(
            model,
            data.inputs(words.split, model),
            data.labelled(words.split, model, words.limit) if words.judged else None,
            settings,
            record,
            _own_calibration(words, data, model),
        )
    inputs = _inputs(words, dataset, model, device)
    if isinstance(inputs, Tensor):
        settings["input_shape"] = list(inputs.shape[1:])
    calibration = _calibration(words, dataset, device)
    return Setup(
        model, inputs, _batches(words, dataset, device), settings, record, calibration, dataset
    )


def _read(words: Words) -> tuple[Words, Dataset | OwnData | None]:
    """The data, and the words with what is said of it beside its name."""
    spec, more = data_words(words.data)
    try:
        numbers = {
            field: int(more[key])
            for key, field in (("batch", "batch_size"), ("limit", "limit"))
            if key in more
        }
    except ValueError:
        numbers = {"limit": 0}
    if any(number < 1 for number in numbers.values()):
        raise SettingError(f"batch and limit of --data are whole numbers from 1; got {words.data}")
    split = more.get("split", words.split)
    if split not in ("train", "validation", "test"):
        raise UnknownNameError("split", split, ("train", "validation", "test"))
    words = dataclasses.replace(words, split=split, **numbers)  # type: ignore[arg-type]  # ints
    return words, None if spec is None else data_of(spec, words.data_root)


def _own_calibration(words: Words, data: OwnData, model: nn.Module) -> Calibration | None:
    if words.calibration is None:
        return None
    if data.loaders.get("train") is data.loaders.get(words.split):
        messages.print(
            f"{data.spec} gives one set of batches, so calibration inputs come from those that "
            "accuracy is measured on; let it return a dict with train and test",
            style="yellow",
        )
    return data.calibration(model, words.calibration)


def refuse_misfit(model: nn.Module, inputs: Inputs) -> None:
    """One sentence where the model cannot be run on these inputs, before anything is measured or
    trained.

    Raises:
        TraceError: it cannot; the layer that raises is named.
    """
    record(model, inputs)


def is_first_process() -> bool:
    """Whether this is the process that writes and prints, of those that accelerate or torchrun
    launched.
    """
    return os.environ.get("RANK", "0") == "0"


def is_artefact(model: str) -> bool:
    """Whether the word for a model is a folder that niwaki wrote."""
    return (Path(model) / checkpoint.PLAN).is_file()


def usable_device(name: str) -> torch.device:
    """The device of that name; "cuda" is this process's own where several were launched.

    Raises:
        SettingError: there is none here.
    """
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from error
    return device


def _factory_arguments(dataset: Dataset | None) -> dict[str, Any]:
    if dataset is None:
        return {}
    channels, height, _ = dataset.input_shape
    return {"classes": dataset.classes, "in_channels": channels, "image_size": height}


def _inputs(
    words: Words, dataset: Dataset | None, model: nn.Module, device: torch.device
) -> Inputs:
    """Two inputs: real ones where there is data, else what the model says of its own, or noise of
    the stated shape.
    """
    if words.input_shape is not None:
        try:
            shape = [int(size) for size in words.input_shape.split(",")]
        except ValueError:
            shape = [0]
        if min(shape) < 1:
            raise SettingError(
                f"--input-shape is written 3,224,224 (no batch axis); got {words.input_shape!r}"
            ) from None
        if dataset is not None and tuple(shape) != tuple(dataset.input_shape):
            theirs = ",".join(map(str, dataset.input_shape))
            raise SettingError(
                f"--input-shape {words.input_shape}, but the inputs of {words.data} are {theirs}; "
                "leave it out"
            )
        return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    if dataset is not None:
        return next(iter(dataset.split(words.split).batches(2)))[0].to(device)
    inputs: Inputs = tree_map_only(
        Tensor, lambda tensor: tensor.to(device), models.example_inputs(model)
    )
    return inputs


def _batches(
    words: Words, dataset: Dataset | None, device: torch.device
) -> Callable[[], Iterable[tuple[Tensor, Tensor]]] | None:
    if dataset is None:
        return None
    split = dataset.split(words.split).to(device)
    return lambda: split.batches(words.batch_size, limit=words.limit)


def _calibration(words: Words, dataset: Dataset | None, device: torch.device) -> Calibration | None:
    """A random subset of the training split, the same for the same seed; never of the split that
    accuracy is measured on.
    """
    if words.calibration is None:
        return None
    if dataset is None:
        raise SettingError(
            "--calibration takes its inputs from the training split of --data; name a data set"
        )
    if words.split == "train":
        raise SettingError(
            "--calibration draws from the training split, so that accuracy is measured on "
            "another: --split test"
        )
    train = dataset.split("train")
    if words.calibration > len(train):
        raise SettingError(
            f"--calibration {words.calibration}: the training split of {words.data} has "
            f"{len(train)} inputs"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(words.seed))
    chosen = train.take(order[: words.calibration]).to(device)
    return Calibration.labelled(lambda: chosen.batches(words.batch_size))
