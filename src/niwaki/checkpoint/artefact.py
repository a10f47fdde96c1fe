"""A pruned network on disk: plan.json, model.safetensors and record.json in one folder. No pickle.

`save` writes the three; `load` builds the original from its factory, replays the plan on it, and loads the weights. The
settings in record.json name the factory and the shape of one input.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_model
from torch import nn

from niwaki import models
from niwaki.checkpoint.weights import load_weights, read_weights
from niwaki.errors import CheckpointError, NiwakiError
from niwaki.graph import Inputs, trace
from niwaki.graph.layers import can_take_bias, give_bias
from niwaki.plan import Plan
from niwaki.records import Record, staged_folder
from niwaki.surgery import shrink

PLAN, WEIGHTS, RECORD = "plan.json", "model.safetensors", "record.json"


class Pruned(Protocol):
    """What can be saved: a pruned model, its plan and its record."""

    @property
    def model(self) -> nn.Module:
        """The smaller module."""

    @property
    def plan(self) -> Plan:
        """What it was cut by."""

    @property
    def record(self) -> Record:
        """Its record."""


def save(
    result: Pruned,
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a pruned network to a folder that appears complete or not at all.

    Args:
        model: what builds the original: a listed name (`"resnet56"`) or `"package.module:factory"`. Without it the folder
            can only be loaded with the original model in hand.
        input_shape: the shape of one input without the batch axis, for models that do not say it themselves.
        overwrite: replace an existing folder.

    Raises:
        OutputError: the folder exists and `overwrite` is not set, or it cannot be written.
    """
    settings = dict(result.record.settings)
    if model is not None:
        settings["model"] = model
    if input_shape is not None:
        settings["input_shape"] = list(input_shape)
    record = dataclasses.replace(result.record, settings=settings)
    with staged_folder(Path(folder), overwrite=overwrite) as stage:
        (stage / PLAN).write_text(result.plan.to_json(), encoding="utf-8")
        (stage / RECORD).write_text(record.to_json(), encoding="utf-8")
        save_model(result.model, str(stage / WEIGHTS))
    return Path(folder)


def load(
    folder: str | os.PathLike[str],
    model: nn.Module | Callable[[], nn.Module] | None = None,
    example_inputs: Inputs | None = None,
) -> nn.Module:
    """The pruned network of a folder that `save` wrote, on the CPU, in evaluation mode.

    Args:
        model: the original, or a function that builds it, with any weights; without it the factory that the record names.
        example_inputs: to trace the original on; without them noise of the recorded input shape.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the original.
    """
    folder = Path(folder)
    record = Record.from_json(_text(folder / RECORD), str(folder / RECORD))
    try:
        plan = Plan.from_json(_text(folder / PLAN))
    except NiwakiError as error:
        raise CheckpointError(f"{folder / PLAN}: {error}") from error
    original = _original(record.settings, model, folder)
    inputs = _noise(record.settings, original, folder) if example_inputs is None else example_inputs
    graph = trace(original, inputs)
    widths = {group.name: group.width for group in graph.groups}
    for name, kept in plan.items():
        if widths.get(name) != kept.width:
            raise CheckpointError(
                f"{folder / PLAN} is of another model: it has a group {name!r} of {kept.width} units, "
                f"{type(original).__name__} has {widths.get(name, 'no such group')}"
            )
    pruned = shrink(graph, plan)
    _add_biases(pruned, folder / WEIGHTS)
    load_weights(pruned, folder / WEIGHTS)
    return pruned.eval()


def _add_biases(model: nn.Module, weights: Path) -> None:
    """Biases that a compensation gave to layers without one: they are in the file and not in the original."""
    known = model.state_dict()
    for name in read_weights(weights).keys() - known.keys():
        layer, _, attribute = name.rpartition(".")
        module = dict(model.named_modules()).get(layer)
        if attribute == "bias" and module is not None and can_take_bias(module):
            give_bias(module, torch.zeros(known[f"{layer}.weight" if layer else "weight"].shape[0]))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); is its folder what niwaki.save or niwaki prune wrote?"
        ) from error


def _original(settings: Mapping[str, Any], model: nn.Module | Callable[[], nn.Module] | None, folder: Path) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if model is not None:
        return model()
    spec = settings.get("model")
    if not isinstance(spec, str):
        raise CheckpointError(f"{folder} does not name the factory of its model; pass the original: load(folder, model=…)")
    return models.build(spec, **settings.get("factory", {}))


def _noise(settings: Mapping[str, Any], original: nn.Module, folder: Path) -> torch.Tensor:
    shape = settings.get("input_shape")
    if isinstance(shape, list) and all(isinstance(size, int) and 0 < size < 2**16 for size in shape):
        reference = next(original.parameters())
        return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(reference.device, reference.dtype)
    try:
        return models.example_inputs(original)
    except NiwakiError as error:
        raise CheckpointError(f"{folder} does not state its input shape; pass load(folder, example_inputs=…)") from error
