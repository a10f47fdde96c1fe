"""What each layer costs: parameters, multiply-adds, and its share of the time."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from niwaki.measure.macs import FORMULAS, plain_attention
from niwaki.running import Inputs, batch_size, call, preserved_mode, preserved_rng


@dataclass(frozen=True)
class LayerCost:
    """One module that has no modules inside it, or what a module does beside those inside it."""

    name: str
    kind: str  # its class
    params: int
    macs: int  # of one sample
    ms: float  # median milliseconds of its forward on the whole batch, over all of its calls


def layer_costs(model: nn.Module, inputs: Inputs, *, repeats: int = 5) -> list[LayerCost]:
    """The layers in the order of their first call. What the model's own code does between them is
    in no row.

    Timing every layer costs time itself: compare the rows with one another, and take
    `measure_latency` for the whole.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
    }
    order: list[str] = []
    times: dict[str, list[float]] = defaultdict(list)
    with preserved_mode(model, training=False), preserved_rng(), plain_attention(), torch.no_grad():
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with counter:
            call(model, inputs)
        counts = counter.get_flop_counts()
        with ExitStack() as hooks:
            for name, module in layers.items():
                _time(module, name, order, times, hooks)
            for _ in range(repeats + 1):
                call(model, inputs)
    root = type(model).__name__
    samples = batch_size(inputs)
    rows = []
    for name in order:
        module, per_run = layers[name], times[name]
        calls = len(per_run) // (repeats + 1)
        runs = [
            sum(per_run[at : at + calls]) for at in range(calls, len(per_run), calls)
        ]  # the first run warms up
        macs = sum(counts.get(f"{root}.{name}" if name else root, {}).values()) // 2
        params = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        rows.append(
            LayerCost(
                name, type(module).__name__, params, round(macs / samples), statistics.median(runs)
            )
        )
    return rows


def _time(
    module: nn.Module, name: str, order: list[str], times: dict[str, list[float]], hooks: ExitStack
) -> None:
    started: list[float] = []

    def before(*_: Any) -> None:
        if not times[name]:
            order.append(name)
        _wait(module)
        started.append(time.perf_counter())

    def after(*_: Any) -> None:
        _wait(module)
        times[name].append((time.perf_counter() - started.pop()) * 1000)

    hooks.callback(module.register_forward_pre_hook(before).remove)
    hooks.callback(module.register_forward_hook(after).remove)


def _wait(module: nn.Module) -> None:
    first = next(module.parameters(), None)
    if first is not None and first.device.type != "cpu":
        torch.accelerator.synchronize()
