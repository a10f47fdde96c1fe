"""niwaki train"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from safetensors.torch import save

from niwaki import data as data_sets
from niwaki import models
from niwaki.cli import options, training
from niwaki.cli.console import before_after, messages, results
from niwaki.cli.setup import is_first_process, refuse_misfit, usable_device
from niwaki.cli.training import Parts, TrainWords, run_training
from niwaki.core.errors import SettingError
from niwaki.core.records import Record, write_bytes_atomic, write_text_atomic
from niwaki.graph import trace
from niwaki.io.manifest import WEIGHTS
from niwaki.measure import snapshot
from niwaki.methods.base.penalty import PENALTIES
from niwaki.methods.rni.convert import fold_sigmoid_batchnorm, with_sigmoid_batchnorm
from niwaki.methods.rni.parameters import parameter_groups
from niwaki.methods.rni.penalty import RNI
from niwaki.training.folder import usual_trackers


def train(
    model: options.Model,
    data: Annotated[
        str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder")
    ],
    out: training.Out,
    data_root: options.DataRoot = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            help="penalty that makes channels prunable: rni:reg=1e-3,b=3, l1:reg=1e-4, group-lasso"
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="penalise only layers whose names match this pattern; may be repeated"),
    ] = None,
    epochs: training.Epochs = 160,
    lr: training.Lr = 0.1,
    batch_size: training.TrainBatch = 64,
    schedule: training.Schedule = "multistep",
    weight_decay: training.WeightDecay = 1e-4,
    set_: training.Set = None,
    augment: training.AugmentWords = "pad=4,border=zero,flip=true",
    missing: training.Missing = "refuse",
    workers: training.Workers = 0,
    tracker: training.Trackers = None,
    resume: training.Resume = False,
    every: training.Every = 60.0,
    limit: training.TrainLimit = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
) -> None:
    """Train a network from scratch, with a penalty that makes it sparse if one is named.

    OUT/model.safetensors holds the weights of the best epoch on the validation split, for
    --weights. Sigmoid BatchNorm, which rni trains with, is folded into plain BatchNorm there.

      niwaki train vgg16 --data cifar10 --data-root data --sparsity rni:reg=1e-3,b=3 --out runs/rni

      niwaki prune vgg16 --weights runs/rni/model.safetensors --data cifar10 --data-root data
        --criterion bn-scale --scope global:min_units=3 --ratio 0.9 --compensation none
        --out pruned

      niwaki finetune pruned --data cifar10 --data-root data --out tuned
    """
    words = TrainWords(
        out, epochs, lr, batch_size, schedule, weight_decay, set_ or (), augment, missing, workers,
        usual_trackers() if tracker is None else tracker, resume, every, limit, seed,
    )  # fmt: skip
    if only and not sparsity:
        raise SettingError("--only says which layers --sparsity is about; name a penalty with it")
    penalty = PENALTIES.build(sparsity) if sparsity else None
    dataset = data_sets.load(data, data_root)
    place = usable_device(device)
    channels, size, _ = dataset.input_shape
    torch.manual_seed(seed)
    network = models.build(model, classes=dataset.classes, in_channels=channels, image_size=size)
    if isinstance(penalty, RNI):
        network = with_sigmoid_batchnorm(network)
    network = network.to(place)
    inputs = next(iter(dataset.split("train").batches(2)))[0].to(place)
    refuse_misfit(network, inputs)
    parts = Parts(
        network,
        dataset,
        str(place),
        {"model": model, "data": data, "sparsity": sparsity, "only": only or []},
        penalty=penalty.over(trace(network, inputs), only=only or ()) if penalty else None,
        parameter_groups=parameter_groups(network, weight_decay=weight_decay),
    )
    history = run_training(words, parts)
    if not is_first_process():
        return
    plain = fold_sigmoid_batchnorm(network)
    write_bytes_atomic(
        out / WEIGHTS,
        save({name: t.detach().cpu().contiguous() for name, t in plain.state_dict().items()}),
    )
    test = dataset.split("test").to(place)
    (now,) = snapshot([plain.eval()], inputs, lambda: test.batches(200))
    settings = {
        "model": model,
        "data": data,
        "sparsity": sparsity,
        "training": training.as_settings(words),
    }
    notes = (
        *history.notes,
        *([history.stopped] if history.stopped else []),
        f"kept epoch {history.best_epoch}",
    )
    record = Record(now, now, settings, seed, {"training": history.seconds}, notes)
    write_text_atomic(out / "record.json", record.to_json())
    results.print(before_after(record, f"{model}, trained on {data}"))
    messages.print(
        f"written to {out}; prune it with niwaki prune {model} --weights {out / WEIGHTS}",
        markup=False,
    )
