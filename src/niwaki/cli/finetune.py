"""niwaki finetune"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

import niwaki
from niwaki import io as checkpoint
from niwaki import models
from niwaki.cli import options, training
from niwaki.cli.console import before_after, messages, results
from niwaki.cli.own_code import task_of
from niwaki.cli.setup import (
    Words,
    is_artefact,
    is_first_process,
    refuse_misfit,
    set_up,
    usable_device,
)
from niwaki.cli.training import Parts, TrainWords, run_training
from niwaki.core.errors import SettingError
from niwaki.core.records import (
    DEPENDENCIES,
    DependencyMaps,
    Record,
    check_output,
    read_dependencies,
)
from niwaki.core.registry import Registry
from niwaki.io.blueprint import Blueprint
from niwaki.measure import snapshot
from niwaki.methods.rni.parameters import parameter_groups
from niwaki.training import Distillation
from niwaki.training.folder import usual_trackers


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A pruned network after its fine-tuning."""

    model: nn.Module
    record: Record
    dependencies: DependencyMaps | None = None


def finetune(
    folder: Annotated[str, typer.Argument(help="a folder that niwaki prune wrote")],
    data: Annotated[
        str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder")
    ],
    out: Annotated[
        Path,
        typer.Option(help="folder for the tuned network; checkpoints and history go to OUT.run"),
    ],
    data_root: options.DataRoot = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="weights of the unpruned network, as a teacher (distillation)"),
    ] = None,
    distil: Annotated[
        str,
        typer.Option(
            help="settings of the distillation; also feature_weight=, to compare features"
        ),
    ] = "weight=0.5,temperature=4",
    epochs: training.Epochs = 160,
    lr: training.Lr = 0.1,
    batch_size: training.TrainBatch = 64,
    set_: training.Set = None,
    augment: training.AugmentWords = "pad=4,border=zero,flip=true",
    missing: training.Missing = "refuse",
    workers: training.Workers = 0,
    tracker: training.Trackers = None,
    resume: training.Resume = False,
    every: training.Every = 60.0,
    limit: training.TrainLimit = None,
    evaluate: options.Evaluate = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Train a pruned network again, and write it to a folder as niwaki prune does.

    niwaki finetune pruned --data cifar10 --data-root data --epochs 40 --lr 0.02 --out tuned

    niwaki finetune pruned --data cifar10 --data-root data --teacher runs/rni/model.safetensors
    --out tuned

    Gradients are clipped to norm 1 unless --set clip_norm=… says otherwise, because repaired
    weights are larger than trained ones.
    """
    if not is_artefact(folder):
        raise SettingError(
            f"{folder} is no folder that niwaki prune wrote; to train a network from scratch use "
            "niwaki train"
        )
    check_output(out, overwrite)
    task = task_of(evaluate)
    more, schedule, weight_decay = training.taken_out(set_ or [])
    if not any(word.partition("=")[0].strip() == "clip_norm" for word in more):
        more = [*more, "clip_norm=1"]
    words = TrainWords(
        out.with_name(f"{out.name}.run"), epochs, lr, batch_size, schedule, weight_decay, more,
        augment, missing, workers, usual_trackers() if tracker is None else tracker, resume, every,
        limit, seed,
    )  # fmt: skip
    setup = set_up(Words(folder, None, data, data_root, device=device, seed=seed))
    blueprint, dependencies = (
        checkpoint.read_blueprint(Path(folder)),
        read_dependencies(Path(folder) / DEPENDENCIES),
    )
    if setup.dataset is None:
        raise SettingError("niwaki finetune trains on a data set by name; see --data")
    assert setup.record is not None
    refuse_misfit(setup.model, setup.inputs)
    if task is not None:
        task(setup.model)  # what is wrong with it shows before hours of training
    parts = Parts(
        setup.model,
        setup.dataset,
        str(usable_device(device)),
        {"data": data, "plan": hashlib.sha256(blueprint.to_json().encode()).hexdigest()},
        distillation=_distillation(blueprint, teacher, distil, str(usable_device(device)))
        if teacher
        else None,
        parameter_groups=parameter_groups(setup.model, weight_decay=weight_decay),
    )
    history = run_training(words, parts)
    if not is_first_process():
        return
    (now,) = snapshot([setup.model.eval()], setup.inputs, setup.batches, task=task)
    before = setup.record
    notes = (*before.notes, *history.notes, *([history.stopped] if history.stopped else []))
    settings = {
        **before.settings,
        **(task.described(next(iter(now.scores))) if task else {}),
        "fine_tuning": training.as_settings(words),
        "accuracy_untuned": before.after.accuracy,
    }
    seconds = {**before.seconds, "fine_tuning": history.seconds}
    record = dataclasses.replace(before, after=now, notes=notes, settings=settings, seconds=seconds)
    niwaki.save(Tuned(setup.model.to("cpu"), record, dependencies), out, overwrite=overwrite)
    results.print(before_after(record, f"{folder}, fine-tuned on {data}"))
    messages.print(f"written to {out}; load it with niwaki.load({str(out)!r})", markup=False)


def _distillation(blueprint: Blueprint, teacher: Path, words: str, device: str) -> Distillation:
    if blueprint.factory is None:
        raise SettingError(
            "the folder does not name the factory of the unpruned network, so --teacher cannot be "
            "used with it"
        )
    original = models.build(blueprint.factory, arguments=blueprint.arguments)
    checkpoint.load_weights(original, teacher)
    plan = blueprint.steps[0] if len(blueprint.steps) == 1 else None
    asked = _DISTIL.build(f"distil:{words}")
    return Distillation(
        original.to(device), asked.weight, asked.temperature, plan, asked.feature_weight
    )


_DISTIL: Registry[DistilWords] = Registry("setting")


@_DISTIL.register("distil")
@dataclasses.dataclass(frozen=True)
class DistilWords:
    """See `niwaki.training.Distillation`."""

    weight: float = 0.5
    temperature: float = 4.0
    feature_weight: float = 0.0
