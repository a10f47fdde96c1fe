"""Training, from the first epoch to the last or from where it stopped: the loop's frame.

The epoch that is kept is chosen on validation data and never on test data. A run that diverges ends
with the last weights that were sound, and one that was killed goes on exactly where its last save
was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from niwaki.core.errors import SettingError
from niwaki.methods.base.objective import Objective
from niwaki.running import preserved_rng
from niwaki.training.accelerator import make_accelerator
from niwaki.training.bar import TrainingBar
from niwaki.training.distillation import Distillation
from niwaki.training.feed import Feed
from niwaki.training.folder import Keeper, RunFolder, check_fits
from niwaki.training.frame import Frame, Validate
from niwaki.training.history import History
from niwaki.training.layout import lay_out, wants_channels_last
from niwaki.training.loop import AfterStep, Penalty, Run, TrainBatches
from niwaki.training.optimizers import make_optimizer
from niwaki.training.settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

ParameterGroups = Sequence[dict[str, Any]]


def fit(  # noqa: PLR0913  # a public verb
    model: nn.Module,
    train_batches: TrainBatches,
    *,
    settings: TrainSettings,
    validate: Validate | None = None,
    penalty: Penalty | None = None,
    distillation: Distillation | Objective | None = None,
    parameter_groups: ParameterGroups | None = None,
    after_step: AfterStep | None = None,
    folder: RunFolder | None = None,
    progress: bool = True,
    observe: Mapping[str, Validate] | None = None,
) -> History:
    """Train `model` in place, and leave it with the weights of the best epoch.

    The same seed, model and batches give the same weights, on the CPU bit for bit, also through
    kills and resumes. torch's random state and every module's training flag come back as they were.
    Under `accelerate launch` or `torchrun` the processes share every batch out among them, so that
    the recipe does not change with their number (each takes BatchNorm's statistics over its own
    part).

    Args:
        train_batches: epoch (from 1) → batches of inputs (batch, …) and class numbers (batch,); a
            `Feed`, or a function. They move to the model's device. Where the result has a length,
            the learning rate follows its schedule step by step, else epoch by epoch in the first
            one. For an exact resume it must depend on the epoch alone.
        validate: scores an epoch; the first with the highest accuracy (then the lowest loss) is
            kept; without it, the last.
        penalty: a scalar that is added to the loss of every step.
        distillation: a teacher to learn from beside the labels, or an objective with a state of its
            own in the place of the loss (`niwaki.GAL`, `niwaki.OED`).
        parameter_groups: as torch's optimisers take them; an entry `lr_scale` multiplies the
            scheduled learning rate.
        after_step: called after every update, without gradients, to hold masks for example.
        folder: where to keep the run, so that it can be resumed; with trackers.
        progress: a line on stderr with epoch, loss, accuracy, images/s and time left.
        observe: more evaluations of the same epochs, by name, which are noted in the history and
            by which nothing is chosen; so a paper's curve on test data can be drawn.

    Raises:
        MissingExtraError: accelerate is not installed.
        SettingError: no parameter is trainable, one-cycle without a length of the first epoch, or a
            resume with other settings.
        DataError: an epoch without batches, or a file that cannot be read any more.
        CheckpointError: the run in the folder is of another model or format, or damaged.
        OutputError: the folder holds a run that is not to be resumed, or cannot be written.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise SettingError(
            "every parameter of the model is frozen (requires_grad is False); there is nothing to "
            "train"
        )
    trackers, place = (folder.trackers, str(folder.path)) if folder else ((), None)
    accelerator = make_accelerator(parameters[0].device, settings.precision, trackers, place)
    asked = _asked(settings, train_batches, (penalty, distillation), parameter_groups, accelerator)
    keeper = Keeper(folder, {**asked, **folder.describes}) if folder else None
    saved = keeper.open() if keeper else None
    if saved and keeper:
        check_fits(saved.part("model"), model.state_dict(), keeper.folder.path)
    watching = distillation.watching(model) if distillation else nullcontext()
    bar = TrainingBar(settings.epochs, progress and accelerator.is_main_process)
    with preserved_rng(), torch.enable_grad(), bar, watching as watch:
        torch.manual_seed(settings.seed + accelerator.process_index)
        run = dataclasses.replace(
            _assembled(model, settings, accelerator, bar, parameter_groups),
            watch=watch,
            penalty=penalty,
            after_step=after_step,
        )
        frame = Frame(run, keeper, train_batches, validate, dict(observe or {}))
        if accelerator.trackers or folder:
            accelerator.init_trackers("events", {key: str(value) for key, value in asked.items()})
        try:
            return frame.train(saved)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            _unwrap(run)
            if run.channels_last and not settings.channels_last:
                lay_out(model, torch.contiguous_format)


def _asked(
    settings: TrainSettings,
    train_batches: TrainBatches,
    additions: tuple[object, ...],
    parameter_groups: ParameterGroups | None,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """All that the weights depend on, as plain data."""
    penalty, distillation = additions
    groups = parameter_groups or ()
    return {
        **dataclasses.asdict(settings),
        "penalty": _said(penalty),
        "distillation": _said(distillation),
        "parameter_groups": [
            {k: str(v) for k, v in group.items() if k != "params"} for group in groups
        ],
        "processes": accelerator.num_processes,
        **(train_batches.describe() if isinstance(train_batches, Feed) else {}),
    }


def _said(part: object) -> str | None:
    """What a callable says of itself; a function its name (the default text of an object would hold
    its address).
    """
    if part is None:
        return None
    says = type(part).__str__ is not object.__str__ or type(part).__repr__ is not object.__repr__
    name = getattr(part, "__qualname__", None)
    return name or (str(part) if says else type(part).__qualname__)


def _assembled(
    model: nn.Module,
    settings: TrainSettings,
    accelerator: Accelerator,
    bar: TrainingBar,
    parameter_groups: ParameterGroups | None,
) -> Run:
    """The model where it is to be, with its optimiser."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    if accelerator.num_processes > 1:
        device = accelerator.device
        model.to(device)
    channels_last = wants_channels_last(model, settings.channels_last, device)
    if channels_last:
        lay_out(model, torch.channels_last)
    groups = (
        [dict(group) for group in parameter_groups]
        if parameter_groups
        else [{"params": parameters}]
    )
    optimizer = make_optimizer(groups, settings)
    forward: nn.Module = (
        accelerator.prepare_model(model) if accelerator.num_processes > 1 else model
    )
    if settings.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]  # torch types it as a function
    ema = _running_mean(model, settings.ema) if settings.ema else None
    prepared = accelerator.prepare_optimizer(optimizer, device_placement=False)
    run = Run(model, forward, prepared, accelerator, settings, bar, device, ema)
    return dataclasses.replace(run, channels_last=channels_last)


def _running_mean(model: nn.Module, decay: float) -> AveragedModel:
    step = get_ema_multi_avg_fn(decay)
    return AveragedModel(model, multi_avg_fn=step, use_buffers=True)


def _unwrap(run: Run) -> None:
    """Take back what accelerate hangs on a module that is shared by several processes."""
    if run.accelerator.num_processes > 1:
        run.accelerator.unwrap_model(run.forward, keep_fp32_wrapper=False)
        vars(run.model).pop("forward", None)
