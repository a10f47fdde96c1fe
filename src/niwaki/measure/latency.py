"""How long a forward takes: several models in one interleaved run, because a machine is never as
fast twice.

A latency alone hardly means anything; the ratio of two that were taken in turns, on one machine, in
one minute, does.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.running import Inputs, as_arguments, call, preserved_mode, preserved_rng
from niwaki.running.lock import PROCESS

Work = Callable[[], object]
Clock = Callable[[Work], float]  # runs the work, returns the milliseconds that it took


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward of the whole batch that was given, in inference mode."""

    median_ms: float
    spread_ms: float  # interquartile range: the middle half of the runs lies within it
    runs: int


def measure_latency(
    models: Sequence[nn.Module],
    inputs: Inputs,
    *,
    repeats: int = 5,
    warmup: int = 3,
    seconds: float = 1.0,
) -> list[Latency]:
    """Time the models in turns on the same inputs: at least `repeats` rounds, and more until
    `seconds` have passed.

    The models and the inputs lie on one device already. On a GPU the time is the device's own (CUDA
    events), on the CPU that of the wall clock. Whatever a model itself raises goes through.

    Raises:
        SettingError: `repeats` below 2, `warmup` below 1, or models on several devices.
    """
    if repeats < 2 or warmup < 1:
        raise SettingError(
            f"repeats must be 2 or more and warmup 1 or more; got {repeats} and {warmup}"
        )
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


@dataclass(frozen=True)
class Ratio:
    """How long one model takes for what another takes, timed in turns.

    Attributes:
        median: of the rounds' ratios; each round times both, so that a machine that is slow for a
            while is slow for both.
        low, high: the median lies between them with 95 % confidence.
        rounds: how many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the width of the interval, as a share of the median."""
        return (self.high - self.low) / 2 / self.median


def latency_ratio(
    first: nn.Module,
    second: nn.Module,
    inputs: Inputs,
    *,
    target: float | None = None,
    precision: float = 0.01,
    seconds: float = 2.0,
    patience: float = 8.0,
) -> Ratio:
    """The time of the second model as a multiple of the first's, on the same inputs.

    Rounds go on for `seconds`, and then until the median is known to `precision`, but not beyond
    `patience` seconds (four times that where fewer than 30 rounds were made).

    Args:
        target: it is enough to know on which side of this the ratio lies.

    Raises:
        SettingError: the models and inputs lie on several devices.
    """
    clock = _clock(_common_device([first, second], inputs))
    with (
        preserved_rng(),
        preserved_mode(first, training=False),
        preserved_mode(second, training=False),
    ):
        forwards = [partial(call, model, inputs) for model in (first, second)]
        _warm_up(forwards, 3)
        ratios: list[float] = []
        start = time.perf_counter()
        with torch.inference_mode():
            while True:
                (a,), (b,) = _rounds(forwards, clock, 1, 0, first=len(ratios))
                ratios.append(b / a)
                elapsed, ratio = time.perf_counter() - start, _ratio(ratios)
                known = elapsed >= seconds and ratio.spread <= precision
                decided = (
                    target is not None
                    and elapsed >= seconds / 2
                    and not ratio.low <= target <= ratio.high
                )
                # slow models have few rounds to their name by then: they get more time, but not
                # without end
                enough = elapsed >= patience and (len(ratios) >= 30 or elapsed >= 4 * patience)
                if len(ratios) >= 8 and (known or decided or enough):
                    return ratio


def _ratio(ratios: list[float]) -> Ratio:
    """The median with its 95 % interval, from the order of the values alone (binomial, normal
    approximation).
    """
    ordered = sorted(ratios)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of a binomial of one half
    low, high = max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach))
    return Ratio(statistics.median(ordered), ordered[low], ordered[high], count)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads for a while; None changes nothing."""
    with PROCESS if count else nullcontext():
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _warm_up(forwards: Sequence[Work], warmup: int) -> None:
    """Let allocators and kernels settle.

    Under no_grad, not inference_mode: a tensor that a model makes once and keeps (rotary angles)
    could never be trained with if it were born in inference mode.
    """
    with torch.no_grad():
        for forward in forwards:
            for _ in range(warmup):
                forward()


def _rounds(
    forwards: Sequence[Work], clock: Clock, repeats: int, seconds: float, first: int = 0
) -> list[list[float]]:
    """Milliseconds by model and round. Every other round goes backwards, so that no model always
    follows the same.
    """
    times: list[list[float]] = [[] for _ in forwards]
    start = time.perf_counter()
    done = 0
    while done < repeats or time.perf_counter() - start < seconds:
        order = range(len(forwards)) if (first + done) % 2 == 0 else reversed(range(len(forwards)))
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
        raise SettingError(
            "models and inputs must lie on one device to be compared; found "
            f"{sorted(map(str, devices))}"
        )
    return devices.pop()


def _clock(device: torch.device) -> Clock:
    """A function that runs what it is given and returns the milliseconds that it took on
    `device`.
    """
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
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))
