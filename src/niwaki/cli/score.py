"""niwaki score"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from niwaki.cli import blocks, options
from niwaki.cli.console import messages, results, table
from niwaki.cli.setup import Words, set_up
from niwaki.core.errors import OutputError
from niwaki.core.records import DEPENDENCIES, write_text_atomic
from niwaki.graph import trace
from niwaki.io.scores import Scores, holds_scores, save_scores
from niwaki.methods.base.criterion import score
from niwaki.methods.mint._layer_dependencies import Dependency
from niwaki.methods.mint.criterion import Mint
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.report.dependency_map import draw_dependencies


def score_command(
    model: options.ModelOrFolder,
    out: Annotated[
        Path,
        typer.Option(help="file of scores to write, .safetensors, for niwaki prune --criterion"),
    ],
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    criterion: Annotated[
        str, typer.Option(help="how to score: l1, l2, l2-gm, fold, bn-scale, random, mint")
    ] = "mint",
    groups: blocks.Groups = None,
    samples_per_class: blocks.PerClass = None,
    engine: blocks.Engine = None,
    workers: blocks.Workers = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="mint: folder for finished layers; run the same command again to resume"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="mint: folder for pictures, one heat map for every pair of layers"),
    ] = None,
    calibration: options.Calibration = None,
    batch_size: options.BatchSize = 200,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
) -> None:
    """Score a network once, and prune it by these scores as often as you like. With mint,
    OUT.dependencies.json says how much each layer depends on the one before it.

    niwaki score vgg16:classifier=two-layer --weights vgg16.safetensors --data cifar10
      --data-root data --criterion mint --groups 8 --samples-per-class 250 --keep vgg16.layers
      --out vgg16.scores.safetensors

    The same on a Ray cluster, or in several processes on this machine:

    niwaki score vgg16 --weights vgg16.safetensors --data cifar10 --data-root data
      --engine ray --out scores.safetensors

    niwaki score vgg16 --weights vgg16.safetensors --data cifar10 --data-root data
      --workers 2 --out scores.safetensors
    """
    method = blocks.MintWords(groups, samples_per_class, engine, workers, keep).criterion(criterion)
    if out.exists() and not holds_scores(out):
        raise OutputError(f"{out} exists and holds no scores; name another file")
    setup = set_up(
        Words(
            model,
            weights,
            data,
            data_root,
            "test",
            batch_size,
            None,
            input_shape,
            device,
            seed,
            calibration,
        ),
    )
    seen = blocks.whole_training_split(setup, method, batch_size)
    graph = trace(setup.model, setup.inputs)
    units: Mapping[str, Tensor]
    dependencies: Sequence[Dependency]
    if isinstance(method, Mint):
        scores = blocks.scored_by_mint(setup, method, seen, seed)
        units, dependencies = scores.units, scores.dependencies
        for remark in dict.fromkeys(remark for item in dependencies for remark in item.remarks):
            messages.print(remark, style="dim", markup=False)
        write_text_atomic(
            out.with_name(f"{out.stem}.{DEPENDENCIES}"), dependency_maps(dependencies).to_json()
        )
    else:
        units, dependencies = score(graph, method, calibration=seen, seed=seed), ()
    save_scores(Scores(str(method), units, dependencies, {**setup.settings, "seed": seed}), out)
    if pictures is not None:
        for item in dependencies:
            draw_dependencies(item, pictures / f"{item.pair.child}.png")
    results.print(
        table(
            f"{model}, {criterion}", ("group", "units", "lowest", "mean", "highest"), _rows(units)
        )
    )
    messages.print(f"written to {out}; use it with niwaki prune --criterion {out}", markup=False)


def _rows(units: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            str(len(values)),
            *(f"{float(part):.4f}" for part in (values.min(), values.mean(), values.max())),
        )
        for name, values in units.items()
    ] or [("–", *("–",) * 4)]
