"""One epoch and one step of training: what moves the weights, and the sums that are told of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from niwaki.core.errors import DataError, SettingError
from niwaki.methods.base.objective import Watching
from niwaki.running import preserved_mode
from niwaki.training.bar import TrainingBar
from niwaki.training.distillation import logits_of
from niwaki.training.feed import Batch
from niwaki.training.history import Epoch
from niwaki.training.schedule import learning_rate
from niwaki.training.settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

TrainBatches = Callable[[int], Iterable[Batch]]
Penalty = Callable[[nn.Module], Tensor]
AfterStep = Callable[[nn.Module], None]
LOOK = 0.1  # seconds between looks at the sums: each waits for the device
LOSS, EXTRA, CORRECT, SAMPLES = range(4)


class DivergedError(Exception):
    """The loss or the weights are no finite numbers any more."""


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same over all epochs.

    Attributes:
        model: the user's module; `forward` is what is called: the model itself, compiled, or shared
            by several processes.
    """

    model: nn.Module
    forward: nn.Module
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    settings: TrainSettings
    bar: TrainingBar
    device: torch.device
    ema: AveragedModel | None = None
    watch: Watching | None = None
    penalty: Penalty | None = None
    after_step: AfterStep | None = None
    channels_last: bool = False

    @property
    def kept(self) -> nn.Module:
        """The module that is validated and kept: the running mean, where there is one."""
        return self.model if self.ema is None else self.ema.module


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch, step: the epoch under way (from 1), and how many of its steps are done.
        sums: of the epoch so far: loss times samples, what penalty and distillation added, correct
            answers, samples.
        seconds: of the epoch so far.
        waited: epochs since the best one.
    """

    sums: Tensor
    epoch: int = 1
    step: int = 0
    steps: int = 0  # in an epoch, as far as known
    seconds: float = 0.0
    lr: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    waited: int = 0
    stopped: str | None = None

    def finish_epoch(self, epoch: Epoch) -> None:
        """Note the epoch, and begin the next."""
        self.epochs.append(epoch)
        self.epoch, self.step, self.seconds = epoch.number + 1, 0, 0.0
        self.sums = torch.zeros_like(self.sums)


def new_sums(device: torch.device) -> Tensor:
    """Nothing so far."""
    return torch.zeros(4, dtype=sums_dtype(device), device=device)


def sums_dtype(device: torch.device) -> torch.dtype:
    """The most exact type that the device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def train_epoch(
    run: Run, progress: Progress, batches: Iterator[Batch], stepped: Callable[[], None]
) -> Epoch:
    """The rest of the epoch that is under way; `stepped` is called after every step.

    Raises:
        DivergedError: the loss or the weights are not finite any more.
        DataError: an epoch without samples.
        SettingError: one-cycle without a known length.
    """
    if not progress.steps and run.settings.schedule == "one-cycle":
        raise SettingError(
            "one-cycle needs the number of batches: give train_batches whose result has a length"
        )
    before, start, looked = progress.seconds, time.perf_counter(), 0.0
    with preserved_mode(run.model, training=True):
        for inputs, targets in batches:
            share = min(progress.step / progress.steps, 1.0) if progress.steps else 0.0
            progress.lr = learning_rate(
                run.settings, (progress.epoch - 1 + share) / run.settings.epochs
            )
            progress.sums += _step(run, inputs.to(run.device), targets.to(run.device), progress.lr)
            progress.step += 1
            progress.seconds = before + time.perf_counter() - start
            if time.perf_counter() - looked > LOOK:
                _tell(run, progress)
                looked = time.perf_counter()
            stepped()
    epoch = _finished(run, progress)
    progress.steps = progress.step
    return epoch


def _step(run: Run, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
    """One update of the weights; what it adds to the sums."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    if run.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    run.optimizer.zero_grad(set_to_none=True)
    pieces = min(run.settings.accumulate, len(targets))
    told = new_sums(run.device)
    parts = zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
    for number, (part, wanted) in enumerate(parts, start=1):
        told = told + _backward(
            run, part, wanted, len(wanted) / len(targets), last=number == pieces
        )
    if run.settings.clip_norm is not None:
        run.accelerator.clip_grad_norm_(run.model.parameters(), run.settings.clip_norm)
    run.optimizer.step()
    with torch.no_grad():
        if run.after_step is not None:
            run.after_step(run.model)
        if run.ema is not None:
            run.ema.update_parameters(run.model)
    return told


def _backward(run: Run, inputs: Tensor, targets: Tensor, share: float, *, last: bool) -> Tensor:
    """Add the gradient of a part of a batch; the penalty comes with the last part."""
    alone = run.accelerator.num_processes == 1
    with nullcontext() if alone or last else run.accelerator.no_sync(run.forward):
        with run.accelerator.autocast():
            logits = logits_of(run.forward(inputs))
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        loss = F.cross_entropy(logits, targets, label_smoothing=run.settings.label_smoothing)
        total = loss if run.watch is None else run.watch.loss(inputs, logits, loss)
        total = total * share if share < 1 else total
        if last and run.penalty is not None:
            total = total + run.penalty(run.model)
        run.accelerator.backward(total)
    with torch.no_grad():
        correct = (logits.argmax(dim=1) == targets).sum()
        numbers = (
            loss * len(targets),
            total - loss * share,
            correct,
            torch.full_like(correct, len(targets)),
        )
        return torch.stack([number.to(sums_dtype(run.device)) for number in numbers])


def _tell(run: Run, progress: Progress) -> None:
    """Move the bar; where there is one process, this is also when a diverged run is noticed."""
    loss, _, correct, samples = progress.sums.tolist()
    if run.accelerator.num_processes == 1:
        check_loss(progress)
    seen = samples * run.accelerator.num_processes
    numbers = (
        f"loss {loss / samples:.3f}  accuracy {correct / samples:.1%}  "
        f"{seen / progress.seconds:,.0f} images/s"
    )
    share = min(progress.step / progress.steps, 1.0) if progress.steps else 0.0
    run.bar.update(progress.epoch, share, numbers)


def check_loss(progress: Progress) -> None:
    """Refuse to go on without a finite loss.

    Raises:
        DivergedError: it is not finite.
    """
    loss, extra = progress.sums[LOSS].item(), progress.sums[EXTRA].item()
    if not math.isfinite(loss + extra):
        raise DivergedError(f"the loss became {loss + extra}")


def check_weights(model: nn.Module) -> None:
    """The last step can break weights or statistics without any loss to show for it.

    Raises:
        DivergedError: a parameter is not finite, or a buffer holds NaN.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise DivergedError(f"parameter {name!r} is not finite any more")
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():  # infinities are usual in masks
            raise DivergedError(f"buffer {name!r} is not a number any more")


def _check_everywhere(run: Run) -> None:
    """What one process finds broken (its own BatchNorm statistics, say) stops all, or the others
    would wait for it.
    """
    if run.accelerator.num_processes == 1:
        check_weights(run.model)
        return
    from accelerate.utils import gather_object

    try:
        check_weights(run.model)
        problem: list[str] = []
    except DivergedError as error:
        problem = [str(error)]
    problems: list[str] = gather_object(problem)
    if problems:
        raise DivergedError(problems[0])


def _finished(run: Run, progress: Progress) -> Epoch:
    """The epoch's numbers, over all processes."""
    if run.accelerator.num_processes > 1:
        single = progress.sums.to(torch.float64)
        gathered: Any = run.accelerator.reduce(single, reduction="sum")
        progress.sums = gathered
        progress.sums[EXTRA] /= run.accelerator.num_processes
    samples = progress.sums[SAMPLES].item()
    if not samples:
        raise DataError(f"train_batches gave no samples for epoch {progress.epoch}")
    check_loss(progress)
    _check_everywhere(run)
    loss, extra, correct, _ = progress.sums.tolist()
    return Epoch(
        progress.epoch,
        loss / samples,
        extra / progress.step,
        correct / samples,
        progress.lr,
        int(samples),
        progress.seconds,
    )
