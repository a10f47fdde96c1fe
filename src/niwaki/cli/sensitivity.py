"""niwaki sensitivity"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.console import messages
from niwaki.cli.own_code import task_of
from niwaki.cli.setup import Words, set_up
from niwaki.core.errors import SettingError
from niwaki.core.records import check_file, write_text_atomic
from niwaki.graph import trace
from niwaki.pruning._sensitivity import sensitivity
from niwaki.report.curves import sensitivity_figure


def sensitivity_command(
    model: options.ModelOrFolder,
    out: Annotated[
        Path, typer.Option(help="picture to write, .png; the numbers go beside it as .json")
    ],
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    criterion: Annotated[
        str, typer.Option(help="how units are scored; the lowest go first")
    ] = "l2",
    compensation: Annotated[
        str, typer.Option(help="repair: auto, moments or reconstruct; with --accuracy any")
    ] = "auto",
    ratios: Annotated[
        str, typer.Option(help="shares of a group's units to remove, each tried")
    ] = "0.1,0.3,0.5,0.7,0.9",
    accuracy: Annotated[
        bool,
        typer.Option("--accuracy", help="draw accuracy on the split of --data, not the residual"),
    ] = False,
    evaluate: options.Evaluate = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files that niwaki wrote")
    ] = False,
    calibration: options.Calibration = None,
    split: options.Split = "validation",
    batch_size: options.BatchSize = 200,
    limit: options.Limit = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
) -> None:
    """Prune each group of channels alone, at several ratios, and draw how much the network loses.

    Without --accuracy that is the residual: the share of what the next layers read that the repair
    cannot restore.

    niwaki sensitivity resnet56 --weights resnet56.pth --data cifar10 --data-root data
      --calibration 256 --out curves.png
    """
    try:
        shares = [float(part) for part in ratios.split(",")]
    except ValueError:
        raise SettingError(f"--ratios is written 0.1,0.5,0.9; got {ratios!r}") from None
    if accuracy and data is None:
        raise SettingError("--accuracy is measured on a data set; name one with --data")
    task = task_of(evaluate)
    if accuracy and task is not None:
        raise SettingError("--accuracy and --evaluate both say what is measured; give one of them")
    if out.suffix != ".png":
        raise SettingError(f"--out is a picture, .png; got {out}")
    check_file(out, overwrite, b"\x89PNG")
    check_file(out.with_suffix(".json"), overwrite, b'"left_out"', b'"measure"')
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
    measured = sensitivity(
        trace(setup.model, setup.inputs),
        criterion=criterion,
        compensation=compensation,
        ratios=shares,
        calibration=setup.calibration,
        evaluate=setup.batches if accuracy else task,
    )
    sensitivity_figure(measured.ratios, measured.curves, out, measure=measured.measure)
    write_text_atomic(out.with_suffix(".json"), measured.to_json())
    for name, why in measured.left_out.items():
        messages.print(f"{name} has no curve: {why}", style="dim", markup=False)
    messages.print(f"written to {out} and {out.with_suffix('.json')}", markup=False)
