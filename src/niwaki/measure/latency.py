"""How long a forward takes: several models in one interleaved run, because a machine is never as fast twice.

A latency alone hardly means anything; the ratio of two that were taken in turns, on one machine, in one minute, does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from niwaki.errors import SettingError
from niwaki.graph.inputs import Inputs, as_arguments, call, preserved_mode, preserved_rng

Work = Callable[[], object]
Clock = Callable[[Work], float]  # runs the work, returns the milliseconds that it took


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward of the whole batch that was given, in inference mode."""

    median_ms: float
    spread_ms: float  # interquartile range: the middle half of the runs lies within it
    runs: int


def measure_latency(
    models: Sequence[nn.Module], inputs: Inputs, *, repeats: int = 5, warmup: int = 3, seconds: float = 1.0
) -> list[Latency]:
    """Time the models in turns on the same inputs: at least `repeats` rounds, and more until `seconds` have passed.

    The models and the inputs lie on one device already. On a GPU the time is the device's own (CUDA events), on the
    CPU that of the wall clock. Whatever a model itself raises goes through.

    Raises:
        SettingError: `repeats` below 2, `warmup` below 1, or models on several devices.
    """
    if repeats < 2 or warmup < 1:
        raise SettingError(f"repeats must be 2 or more and warmup 1 or more; got {repeats} and {warmup}")
    if not models:
        return []
    clock = _clock(_common_device(models, inputs))
    with preserved_rng(), ExitStack() as modes:
        for model in models:
            modes.enter_context(preserved_mode(model, training=False))
        forwards = [partial(call, model, inputs) for model in models]
        _warm_up(forwards, warmup)
        with torch.inference_mode():
            times = _rounds(forwards, clock, repeats, seconds)
    return [_summary(runs) for runs in times]


def _warm_up(forwards: Sequence[Work], warmup: int) -> None:
    """Let allocators and kernels settle.

    Under no_grad, not inference_mode: a tensor that a model makes once and keeps (rotary angles) could never be
    trained with if it were born in inference mode.
    """
    with torch.no_grad():
        for forward in forwards:
            for _ in range(warmup):
                forward()


def _rounds(forwards: Sequence[Work], clock: Clock, repeats: int, seconds: float) -> list[list[float]]:
    """Milliseconds by model and round. Every other round goes backwards, so that no model always follows the same."""
    times: list[list[float]] = [[] for _ in forwards]
    start = time.perf_counter()
    done = 0
    while done < repeats or time.perf_counter() - start < seconds:
        order = range(len(forwards)) if done % 2 == 0 else reversed(range(len(forwards)))
        for index in order:
            times[index].append(clock(forwards[index]))
        done += 1
    return times


def _summary(runs: list[float]) -> Latency:
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return Latency(statistics.median(runs), high - low, len(runs))


def _common_device(models: Sequence[nn.Module], inputs: Inputs) -> torch.device:
    args, kwargs = as_arguments(inputs)
    tensors: list[Tensor] = [tensor for model in models for tensor in model.parameters()]
    tensors += [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    devices = {tensor.device for tensor in tensors} or {torch.device("cpu")}
    if len(devices) > 1:
        raise SettingError(f"models and inputs must lie on one device to be compared; found {sorted(map(str, devices))}")
    return devices.pop()


def _clock(device: torch.device) -> Clock:
    """A function that runs what it is given and returns the milliseconds that it took on `device`."""
    if device.type == "cuda":
        return lambda work: _cuda_ms(work, device)
    synchronize = _no_wait if device.type == "cpu" else torch.accelerator.synchronize
    return lambda work: _wall_ms(work, synchronize)


def _no_wait() -> None:
    """The CPU is done when the call returns."""


def _wall_ms(work: Work, synchronize: Callable[[], None]) -> float:
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return (time.perf_counter() - start) * 1000


def _cuda_ms(work: Work, device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))
