"""niwaki prune"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import niwaki
from niwaki.cli import blocks as block_words
from niwaki.cli import options
from niwaki.cli.console import before_after, messages, results
from niwaki.cli.own_code import task_of
from niwaki.cli.scope import selection_of
from niwaki.cli.setup import Words, set_up
from niwaki.cli.voice import log
from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.records import check_output
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.given import Given
from niwaki.methods.mint.criterion import Mint
from niwaki.pruning.result import Result
from niwaki.pruning.selection import Selection
from niwaki.pruning.trimming import refuse_idle


def prune(
    model: options.ModelOrFolder,
    weights: options.Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder, with settings as "
            "cifar10:split=test,batch=200,limit=1000; or package.module:function that gives batches"
        ),
    ] = None,
    data_root: options.DataRoot = None,
    quality: Annotated[
        Literal["fast", "default", "best"],
        typer.Option(
            help="for those who do not want to choose: fast, without a repair; default; best, "
            "which takes its time, and is best with --calibration; what is stated beside it wins"
        ),
    ] = "default",
    criterion: Annotated[
        str | None,
        typer.Option(
            help="which units stay: l1, l2 (the default), l2-gm, fold, reconstruct, auto, "
            "bn-scale, random, mint:groups=8; or a file that niwaki score wrote"
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "--ratio",
            help=(
                "share to remove: 0.5 or 50% of the channels, or of params, macs, bytes, memory, "
                "latency=0.5,batch=8,threads=2 or latency=0.5,measured=device.json (see niwaki "
                "export --ladder); or several: macs=0.5,params=0.4; without it half "
                "of the channels"
            ),
        ),
    ] = None,
    compensation: Annotated[
        str | None,
        typer.Option(
            help=(
                "repair: none, merge, match, fold, moments (no data), reconstruct "
                "(--calibration), auto (the default)"
            )
        ),
    ] = None,
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
        str | None,
        typer.Option(
            help="local: one share for all; global: one threshold; cost: on score per cost; auto: "
            "by what the answer loses; quick: the same to first order, the default for all budgets "
            "but channels, which go in one share for all. With settings: "
            "global:min_units=3,multiple=8,at_most=0.8; local:shares=layer1.*=0.6+fc=0.3; "
            "rule=quantile; what=units+branches (whole residual branches too); uniform=true (one "
            "width for the same layers of all blocks). With mint, blocks of weights: blocks, or "
            "blocks:upper_limit=0.9,cut_off=0.3,fed=true; blocks:cut_off=0:1:0.1 only lists what "
            "each cut-off would do"
        ),
    ] = None,
    calibration: options.Calibration = None,
    evaluate: options.Evaluate = None,
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
        --only 'layer*.conv1' --scope local:rounding=floor --ratio 0.3 --out pruned

    Shares of your own by layer, 60 % in the first stage and 10 % in the last; all others stay
    whole:

      niwaki prune resnet56:shortcut=projection --weights resnet56.pth --data cifar10 --data-root
      data
        --ratio 0 --scope 'local:shares=layer1.*.conv1=0.6+layer3.*.conv1=0.1' --out pruned

    Your own network, a third of its parameters gone, one threshold for all layers:

      niwaki prune mypackage.nets:build --weights w.safetensors --input-shape 3,224,224
        --budget params=0.33 --scope global --out pruned

    Blocks of weights that no later layer depends on, as MINT has it; then niwaki finetune:

      niwaki prune mnist-mlp --weights mlp.safetensors --data mnist --data-root data
        --criterion mint:groups=50,samples_per_class=250 --scope blocks:upper_limit=0.97 --only fc2
        --budget params=0.96 --out trimmed

    The best there is without training, for those who do not want to choose (--quality fast is the
    other end):

      niwaki prune resnet56:shortcut=projection --weights resnet56.pth --data cifar10 --data-root
      data
        --budget macs=0.5 --calibration 1024 --quality best --out pruned

    Units repaired by least squares on 512 training images without their labels, then every layer
    fitted to the original's:

      niwaki prune resnet56:shortcut=projection --weights resnet56.pth --data cifar10 --data-root
      data
        --ratio 0.5 --calibration 512 --recovery refit --out pruned

    Your own data and your own measure of how well a network does:

      niwaki prune mypackage.nets:build --weights w.safetensors --data mypackage.data:loaders
        --evaluate mypackage.metrics:map50 --calibration 256 --out pruned

    Half the time for a batch of 8 on 2 threads, measured; first what that would cut:

      niwaki prune timm:mobilenetv2_100 --weights w.safetensors --budget
      latency=0.5,batch=8,threads=2 --dry-run
    """
    share = _share(budget)
    task = task_of(evaluate)
    cut = block_words.block_settings(scope, dry_run)
    file = Path(criterion) if criterion is not None and criterion.endswith(".safetensors") else None
    method = None if criterion is None or file else CRITERIA.build(criterion)
    chosen = selection_of("local" if cut or scope is None else scope, only or (), skip or ())
    words = None
    if cut is not None:
        words = block_words.BlockWords(
            share if budget else None,
            cut.cut_off,
            cut.upper_limit,
            cut.fed,
            chosen.only,
            chosen.skip,
        )
        words.all()  # what is wrong with it is said before anything is scored
        refuse_idle(
            quality=quality != "default",
            compensation=compensation is not None,
            recovery=bool(recovery),
        )
    if out is not None:
        check_output(out, overwrite)
    setup = set_up(
        Words(
            model,
            weights,
            data,
            data_root,
            input_shape=input_shape,
            device=device,
            seed=seed,
            calibration=calibration,
            judged=task is None,
        )
    )
    seen = block_words.whole_training_split(setup, method, 200)
    known = None if file is None else block_words.scores_of(file, setup)
    if known is None and isinstance(method, Mint):
        known = block_words.scored_by_mint(setup, method, seen, seed)
    if words is not None:
        trimmed = block_words.trim_blocks(setup, known, words, task, seed)
        if trimmed is not None:
            title = f"{model}, {trimmed.params_gone:.2%} of the blocks' weights gone"
            _hand_out(trimmed, out, overwrite, json, title)
        return
    if known is not None:
        method = Given(
            known.units, known.criterion if file is None else f"{known.criterion}, from {file}"
        )
    asked: dict[str, Any] = {
        "budget": share,
        "quality": quality,
        "criterion": method,
        "compensation": compensation,
        "calibration": seen,
        "seed": seed,
        **_choices(chosen, said=scope is not None),
    }
    if dry_run:
        typer.echo(str(niwaki.preview(setup.model, setup.inputs, **asked)))
        return
    result = niwaki.prune(
        setup.model,
        setup.inputs,
        **asked,
        recovery=recovery or None,
        evaluate=setup.batches if task is None else task,
    ).with_settings(**setup.settings)
    if known is not None:
        result = block_words.with_dependencies(result, known)
    used = result.record.settings
    name = used["criterion"] if criterion is None or file else criterion
    _hand_out(
        result, out, overwrite, json, f"{model}, {share} removed, {name}, {used['compensation']}"
    )


def _choices(chosen: Selection, *, said: bool) -> dict[str, Any]:
    """The fields of a selection; the scope where it was said, and not left to the quality."""
    choices = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    return choices if said else {key: choices[key] for key in choices if key != "scope"}


def _share(budget: list[str] | None) -> Budget:
    """What is to go; half of the channels where nothing is said."""
    if budget and len(budget) > 1:
        raise SettingError(
            f"--budget (--ratio) is given {len(budget)} times: {', '.join(budget)}; give one of "
            "them"
        )
    return Budget.parse(budget[0]) if budget else Budget(0.5)


def _hand_out(result: Result, out: Path | None, overwrite: bool, json: bool, title: str) -> None:
    """Write the network, say what must be said, and print what was measured."""
    result = result.measured()
    if out is not None:
        niwaki.save(result, out, overwrite=overwrite)
    for stage, seconds in result.record.seconds.items():
        log.info("%s took %.2f s", stage, seconds)
    for note in result.record.notes:
        messages.print(note, style="dim", markup=False)
    if json:
        typer.echo(result.record.to_json(), nl=False)
    else:
        results.print(before_after(result.record, title))
    if out is not None:
        messages.print(f"written to {out}; load it with niwaki.load({str(out)!r})", markup=False)
