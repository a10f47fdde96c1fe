"""How well a classifier does: accuracy and loss over every sample that it is given, counted
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.core.errors import DataError
from niwaki.core.records import Evaluation
from niwaki.running import preserved_mode, preserved_rng

Batch = tuple[Tensor, Tensor]  # inputs (batch, …), targets (batch,) as class numbers


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run the model in evaluation mode over all batches of (inputs, class numbers) and count.

    The model's outputs are logits (batch, classes), or an object that has them as `logits`. Batches
    move to `device` (default: that of the model's first parameter); the model stays where it is.
    `progress` is told the number of samples done after each batch. Modes and random state come back
    as they were, also after an error.

    Raises:
        DataError: no batches, targets that are no class numbers, or outputs of another shape.
    """
    place = torch.device(device) if device is not None else _device(model)
    samples = correct = broken = 0
    loss = 0.0
    # no_grad and not inference_mode: training goes on after this, and may meet a tensor that the
    # model kept.
    with preserved_mode(model, training=False), preserved_rng(), torch.no_grad():
        for inputs, targets in batches:
            logits, targets = _logits(model(inputs.to(place)), targets.to(place))
            bad = (logits.isnan() | logits.isposinf()).any(
                dim=1
            )  # -inf is how a class is ruled out
            samples += len(targets)
            correct += int(((logits.argmax(dim=1) == targets) & ~bad).sum())
            broken += int(bad.sum())
            loss += F.cross_entropy(logits.float(), targets, reduction="sum").item()
            if progress is not None:
                progress(samples)
    if not samples:
        raise DataError(
            "there are no samples to evaluate on; an iterator that was read before is empty the "
            "second time"
        )
    return Evaluation(correct / samples, loss / samples, samples, correct, broken)


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _logits(output: object, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (batch, classes) in a model's output and the targets (batch,), both checked."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise DataError(
            "the model must give a tensor of logits to be evaluated; it gives "
            f"{type(output).__name__}"
        )
    shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise DataError(f"logits must be (batch, classes) and targets (batch,); got {shapes}")
    if targets.is_floating_point() or ((targets < 0) | (targets >= logits.shape[1])).any():
        raise DataError(
            f"targets must be class numbers from 0 to {logits.shape[1] - 1}, the classes of the "
            "output"
        )
    return logits, targets.long()
