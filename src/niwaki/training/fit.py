"""The training loop: plain SGD on the cross-entropy, one device, for networks that train in minutes.

The epoch that is kept is chosen on validation data and never on test data. A run that diverges ends with the last
weights that were sound.
"""

from __future__ import annotations

import copy
import math
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.errors import DataError, SettingError
from niwaki.graph.inputs import preserved_mode, preserved_rng
from niwaki.measure import Evaluation
from niwaki.training.bar import TrainingBar
from niwaki.training.history import Epoch, History
from niwaki.training.settings import TrainSettings, learning_rate

TrainBatches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
Validate = Callable[[nn.Module], Evaluation]
Penalty = Callable[[nn.Module], Tensor]


class _DivergedError(Exception):
    """The loss or the weights are no finite numbers any more."""


@dataclass(frozen=True)
class _Run:
    """What stays the same over all epochs."""

    model: nn.Module
    optimizer: torch.optim.SGD
    settings: TrainSettings
    penalty: Penalty | None
    bar: TrainingBar
    device: torch.device


def fit(
    model: nn.Module,
    train_batches: TrainBatches,
    *,
    settings: TrainSettings,
    validate: Validate | None = None,
    penalty: Penalty | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place, and leave it with the weights of the best epoch.

    `train_batches(epoch)`, epochs from 1, gives batches of inputs (batch, …) and class numbers (batch,); they move to
    the model's device. Where it has a length, the learning rate follows its schedule step by step, else epoch by epoch
    in the first one. `validate(model)` scores an epoch, and the first with the highest accuracy (then the lowest loss)
    is kept; without it, the last. `penalty(model)` is a scalar added to the loss of every step.

    The same seed, model and batches give the same weights, on the CPU bit for bit. torch's random state and every
    module's training flag come back as they were.

    Raises:
        SettingError: no parameter is trainable, or one-cycle without a length of the first epoch.
        DataError: an epoch without batches.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise SettingError("every parameter of the model is frozen (requires_grad is False); there is nothing to train")
    optimizer = torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    with preserved_rng(), torch.enable_grad(), TrainingBar(settings.epochs, progress) as bar:
        torch.manual_seed(settings.seed)
        run = _Run(model, optimizer, settings, penalty, bar, parameters[0].device)
        return _epochs(run, train_batches, validate)


def _epochs(run: _Run, train_batches: TrainBatches, validate: Validate | None) -> History:
    """All epochs; what is best so far is kept aside, so that there is always something sound to go back to."""
    best, best_epoch, best_score = copy.deepcopy(run.model.state_dict()), 0, (-math.inf, -math.inf)
    epochs: list[Epoch] = []
    stopped = None
    steps = 0
    for number in range(1, run.settings.epochs + 1):
        batches = train_batches(number)
        steps = operator.length_hint(batches, steps)
        try:
            epoch, steps = _train_epoch(run, number, batches, steps)
        except _DivergedError as error:
            kept = f"the weights of epoch {best_epoch}" if best_epoch else "the weights that training began with"
            stopped = f"training stopped in epoch {number}: {error}; kept {kept}. A lower lr than {run.settings.lr} may do"
            run.bar.say(stopped)
            break
        epoch = replace(epoch, validation=_validated(run.model, validate))
        epochs.append(epoch)
        score = _score(epoch)
        if score > best_score or validate is None:
            best, best_epoch, best_score = copy.deepcopy(run.model.state_dict()), number, score
    run.model.load_state_dict(best)
    return History(tuple(epochs), best_epoch, stopped)


def _validated(model: nn.Module, validate: Validate | None) -> Evaluation | None:
    with preserved_rng():  # the weights must not depend on whether someone watches
        return validate(model) if validate else None


def _score(epoch: Epoch) -> tuple[float, float]:
    """Higher is better: accuracy, then a low loss; a loss that is not finite comes last."""
    if epoch.validation is None:
        return (0.0, 0.0)
    loss = epoch.validation.loss
    return (epoch.validation.accuracy, -loss if math.isfinite(loss) else -math.inf)


def _train_epoch(run: _Run, number: int, batches: Iterable[tuple[Tensor, Tensor]], steps: int) -> tuple[Epoch, int]:
    """One pass; `steps` is its number of batches as far as known, else 0. Returns it with the number that it had."""
    if not steps and run.settings.schedule == "one-cycle":
        raise SettingError("one-cycle needs the number of batches: give train_batches whose result has a length")
    loss_sum = penalty_sum = lr = 0.0
    correct = samples = step = 0
    start = time.perf_counter()
    with preserved_mode(run.model, training=True):
        for step, (inputs, targets) in enumerate(batches, start=1):
            share = min((step - 1) / steps, 1.0) if steps else 0.0
            lr = learning_rate(run.settings, (number - 1 + share) / run.settings.epochs)
            loss, extra, hits = _step(run, inputs.to(run.device), targets.to(run.device), lr)
            samples += len(targets)
            loss_sum += loss * len(targets)
            penalty_sum += extra
            correct += hits
            speed = samples / (time.perf_counter() - start)
            numbers = f"loss {loss_sum / samples:.3f}  accuracy {correct / samples:.1%}  {speed:,.0f} images/s"
            run.bar.update(number, min(step / steps, 1.0) if steps else 0.0, numbers)
    if not samples:
        raise DataError(f"train_batches gave no samples for epoch {number}")
    _check_weights(run.model)
    seconds = time.perf_counter() - start
    epoch = Epoch(number, loss_sum / samples, penalty_sum / step, correct / samples, lr, samples, seconds)
    return epoch, step


def _step(run: _Run, inputs: Tensor, targets: Tensor, lr: float) -> tuple[float, float, int]:
    """One update of the weights; the loss, the penalty and the number of correct answers before it."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    logits = run.model(inputs)
    loss = F.cross_entropy(logits, targets, label_smoothing=run.settings.label_smoothing)
    extra = run.penalty(run.model) if run.penalty else loss.new_zeros(())
    total = loss + extra
    if not math.isfinite(total.item()):
        raise _DivergedError(f"the loss became {total.item()}")
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return loss.item(), extra.item(), int((logits.argmax(dim=1) == targets).sum())


def _check_weights(model: nn.Module) -> None:
    """The last step of an epoch can break weights or statistics without any loss to show for it."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise _DivergedError(f"parameter {name!r} is not finite any more")
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():  # infinities are usual in masks
            raise _DivergedError(f"buffer {name!r} is not a number any more")
