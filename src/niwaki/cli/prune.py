"""niwaki prune"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import niwaki
from niwaki.cli import blocks, options
from niwaki.cli.console import before_after, messages, results
from niwaki.cli.setup import Words, set_up
from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.records import check_output
from niwaki.methods.given import Given
from niwaki.methods.mint.criterion import Mint
from niwaki.pruning.allocation import Rounding, Scope, Selection
from niwaki.pruning.result import Result


def prune(
    model: options.ModelOrFolder,
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    criterion: Annotated[
        str,
        typer.Option(
            help="which units stay: l1, l2, l2-gm, fold, reconstruct, bn-scale, random, mint"
        ),
    ] = "l2",
    scores: blocks.ScoresFile = None,
    granularity: blocks.Granularity = "unit",
    groups: blocks.Groups = None,
    samples_per_class: blocks.PerClass = None,
    engine: blocks.Engine = None,
    workers: blocks.Workers = None,
    upper_limit: blocks.UpperLimit = None,
    cut_off: blocks.CutOffs = None,
    fed: blocks.Fed = False,
    ratio: Annotated[
        float | None, typer.Option(help="share of the channels to remove, in [0, 1)")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help=(
                "share to remove of channels, params, macs, bytes, memory, or "
                "latency=0.5,batch=8,threads=2"
            )
        ),
    ] = None,
    compensation: Annotated[
        str,
        typer.Option(
            help=(
                "repair: none, merge, match, fold, moments (no data), reconstruct "
                "(--calibration), auto"
            )
        ),
    ] = "auto",
    recovery: Annotated[
        list[str] | None,
        typer.Option(
            help="after the cut, with --calibration: batchnorm, refit, lbfgs; may be repeated"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for plan.json, model.safetensors, record.json")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="prune only layers named like this glob; may be repeated"),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="leave layers named like this glob whole; may be repeated"),
    ] = None,
    scope: Annotated[
        Scope,
        typer.Option(
            help="local: one share for all; global: one threshold; cost: on score per cost"
        ),
    ] = "local",
    min_units: Annotated[int, typer.Option(help="units that stay in every group at least")] = 1,
    rounding: Annotated[Rounding, typer.Option(help="of kept counts")] = "round",
    multiple: Annotated[
        int | None,
        typer.Option(help="round kept counts to a multiple of this; 8 for latency, else 1", min=1),
    ] = None,
    calibration: options.Calibration = None,
    split: options.Split = "test",
    batch_size: options.BatchSize = 200,
    limit: options.Limit = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would go and what it costs; cut nothing")
    ] = False,
    json: options.Json = False,
) -> None:
    """Prune a trained network, repair it, prove the result and measure it.

    Half of all hidden units of LeNet-300-100, merged into the others:

      niwaki prune lenet-300-100 --weights lenet.pth --data fashion-mnist --data-root data
        --criterion l1 --ratio 0.5 --compensation merge --out pruned

    Only the first convolution of every block of a ResNet-56:

      niwaki prune resnet56:shortcut=projection --weights resnet56.pth --data cifar10 --data-root
      data
        --only 'layer*.conv1' --rounding floor --ratio 0.3 --out pruned

    Your own network, a third of its parameters gone, one threshold for all layers:

      niwaki prune mypackage.nets:build --weights w.safetensors --input-shape 3,224,224
        --budget params=0.33 --scope global --out pruned

    Blocks of weights that no later layer depends on, as MINT has it; then niwaki finetune:

      niwaki prune mnist-mlp --weights mlp.safetensors --data mnist --data-root data --criterion
      mint --granularity block
        --groups 50 --samples-per-class 250 --upper-limit 0.97 --only fc2 --budget params=0.96 --out
        trimmed

    Units repaired by least squares on 512 training images without their labels, then every layer
    fitted to the original's:

      niwaki prune resnet56:shortcut=projection --weights resnet56.pth --data cifar10 --data-root
      data
        --ratio 0.5 --calibration 512 --recovery refit --out pruned

    Half the time for a batch of 8 on 2 threads, measured; first what that would cut:

      niwaki prune timm:mobilenetv2_100 --weights w.safetensors --budget
      latency=0.5,batch=8,threads=2 --dry-run
    """
    if ratio is not None and budget is not None:
        raise SettingError("--ratio and --budget both say how much to remove; give one of them")
    share = Budget.parse(budget) if budget is not None else Budget(0.5 if ratio is None else ratio)
    method = blocks.MintWords(groups, samples_per_class, engine, workers).criterion(criterion)
    blocks.refuse_unheard(granularity, upper_limit, cut_off, fed, dry_run)
    wanted = None if budget is None and ratio is None else share
    words = blocks.BlockWords(
        wanted, cut_off, upper_limit, fed, tuple(only or ()), tuple(skip or ())
    )
    if granularity == "block":
        words.all()  # what is wrong with it is said before anything is scored
    if out is not None:
        check_output(out, overwrite)
    setup = set_up(
        Words(
            model,
            weights,
            data,
            data_root,
            split,
            batch_size,
            limit,
            input_shape,
            device,
            seed,
            calibration,
        )
    )
    seen = blocks.whole_training_split(setup, method, batch_size)
    known = None if scores is None else blocks.scores_of(scores, setup)
    if known is None and isinstance(method, Mint):
        known = blocks.scored_by_mint(setup, method, seen, seed)
    if granularity == "block":
        trimmed = blocks.trim_blocks(setup, known, words, seed)
        if trimmed is not None:
            _hand_out(
                trimmed,
                out,
                overwrite,
                json,
                f"{model}, {trimmed.params_gone:.2%} of the blocks' weights gone",
            )
        return
    if known is not None:
        method = Given(
            known.units, known.criterion if scores is None else f"{known.criterion}, from {scores}"
        )
    if dry_run:
        chosen = Selection(
            scope, tuple(only or ()), tuple(skip or ()), min_units, rounding, multiple
        )
        foreseen = niwaki.preview(
            setup.model,
            setup.inputs,
            criterion=method,
            budget=share,
            compensation=compensation,
            calibration=seen,
            selection=chosen,
            seed=seed,
        )
        typer.echo(str(foreseen))
        return
    result = niwaki.prune(
        setup.model,
        setup.inputs,
        criterion=method,
        budget=share,
        compensation=compensation,
        recovery=recovery or (),
        data=setup.batches,
        calibration=seen,
        scope=scope,
        only=only or (),
        skip=skip or (),
        min_units=min_units,
        rounding=rounding,
        multiple=multiple,
        seed=seed,
    ).with_settings(**setup.settings)
    if known is not None:
        result = blocks.with_dependencies(result, known)
    name = criterion if scores is None else method
    _hand_out(result, out, overwrite, json, f"{model}, {share} removed, {name}, {compensation}")


def _hand_out(result: Result, out: Path | None, overwrite: bool, json: bool, title: str) -> None:
    """Write the network, say what must be said, and print what was measured."""
    if out is not None:
        niwaki.save(result, out, overwrite=overwrite)
    for note in result.record.notes:
        messages.print(note, style="dim", markup=False)
    if json:
        typer.echo(result.record.to_json(), nl=False)
    else:
        results.print(before_after(result.record, title))
    if out is not None:
        messages.print(f"written to {out}; load it with niwaki.load({str(out)!r})", markup=False)
