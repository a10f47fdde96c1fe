"""niwaki export"""

from __future__ import annotations

import dataclasses
import json as json_text
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

import niwaki
from niwaki.cli import options
from niwaki.cli.console import messages, results, table
from niwaki.cli.setup import Setup, Words, set_up
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.records import staged_folder
from niwaki.io import bench as bench_script
from niwaki.io.exported import Exported
from niwaki.io.onnx import export_onnx
from niwaki.io.program import export_program
from niwaki.io.quantise import quantise_onnx
from niwaki.io.session import OnnxClassifier
from niwaki.measure import count_params
from niwaki.measure import evaluate as measure_accuracy

FORMATS = ("onnx", "pt2", "int8")
LADDER = (0.25, 0.5, 0.75, 0.9)  # shares of the channels that go


def export(
    model: options.ModelOrFolder,
    out: Annotated[Path, typer.Option(help="folder to write: the files and export.json")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="onnx (the default), pt2 (torch.export) or int8 (onnx in 8 bits); may be repeated",
        ),
    ] = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    split: options.Split = "test",
    batch_size: options.BatchSize = 200,
    limit: options.Limit = None,
    input_shape: options.InputShape = None,
    calibration: Annotated[
        int | None,
        typer.Option(
            help="how many training inputs int8 takes its ranges from (200 if left out)", min=1
        ),
    ] = None,
    bench: Annotated[
        bool,
        typer.Option(help="write bench.py too: it times the file on any machine, without niwaki"),
    ] = False,
    ladder: Annotated[
        bool,
        typer.Option(
            help="write the network at four smaller sizes too (pruned without a repair), for "
            "bench.py: what it prints on a device is what a budget latency=0.5,measured=FILE reads"
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write a network for ONNX Runtime or torch.export, run the file, and compare it with the
    network.

    niwaki export pruned --out deploy

    niwaki export pruned --format onnx --format int8 --data cifar10 --data-root data --out deploy
    """
    wanted = tuple(dict.fromkeys(formats or ["onnx"]))
    _refuse(wanted, data, calibration, bench)
    if ladder and not (bench and "onnx" in wanted):
        raise SettingError("--ladder is of ONNX files that bench.py times: --format onnx --bench")
    calibrated = (calibration or 200) if "int8" in wanted else None
    words = Words(
        model, weights, data, data_root, split, batch_size, limit, input_shape, "cpu", 0, calibrated
    )
    setup = set_up(words)
    files: dict[str, Exported] = {}
    with staged_folder(out, overwrite=overwrite) as stage:
        if "onnx" in wanted or "int8" in wanted:
            files["onnx"] = export_onnx(setup.model, setup.inputs, stage / "model.onnx")
        if "int8" in wanted and setup.calibration is not None:
            batches = [
                inputs for inputs, _ in setup.calibration.batches() if isinstance(inputs, Tensor)
            ]
            files["int8"] = quantise_onnx(stage / "model.onnx", stage / "model.int8.onnx", batches)
        if "pt2" in wanted:
            files["pt2"] = export_program(setup.model, setup.inputs, stage / "model.pt2")
        accuracy: dict[str, float] = {}
        if setup.batches is not None:
            accuracy["network"] = measure_accuracy(setup.model, setup.batches()).accuracy
            for name in ("onnx", "int8"):
                if name in files:
                    runtime = OnnxClassifier(files[name].path)
                    accuracy[name] = measure_accuracy(runtime, setup.batches()).accuracy
        if bench:
            shutil.copyfile(bench_script.__file__, stage / "bench.py")
        if ladder:
            _write_ladder(setup, stage)
        record = _record(files, accuracy, count_params(setup.model))
        (stage / "export.json").write_text(
            json_text.dumps(record, indent=2) + "\n", encoding="utf-8"
        )
    if json:
        typer.echo(json_text.dumps(record, indent=2))
    else:
        results.print(
            table(
                f"{model} for other runtimes",
                ("", "bytes", "difference", "batch", "accuracy"),
                _rows(record),
            )
        )
    messages.print(f"written to {out}", markup=False)


def _write_ladder(setup: Setup, stage: Path) -> None:
    """The network with fewer channels, as bench-75.onnx and so on; only their sizes matter."""
    for share in LADDER:
        smaller = niwaki.prune(setup.model, setup.inputs, share, quality="fast")
        export_onnx(smaller.model, setup.inputs, stage / f"bench-{100 * (1 - share):.0f}.onnx")


def _refuse(
    wanted: tuple[str, ...], data: str | None, calibration: int | None, bench: bool
) -> None:
    for name in wanted:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    if "int8" in wanted and data is None:
        raise SettingError(
            "--format int8 takes the activations' ranges from training inputs; name a data set "
            "with --data"
        )
    if calibration is not None and "int8" not in wanted:
        raise SettingError("--calibration is for --format int8, which takes its ranges from inputs")
    if bench and not {"onnx", "int8"} & {*wanted}:
        raise SettingError("--bench times ONNX files; add --format onnx")


def _record(files: dict[str, Exported], accuracy: dict[str, float], params: int) -> dict[str, Any]:
    entries = {
        name: {**dataclasses.asdict(file), "path": file.path.name} for name, file in files.items()
    }
    return {"params": params, "files": entries, "accuracy": accuracy}


def _rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, file in record["files"].items():
        share = record["accuracy"].get(name)
        step, fixed = file["step"], len(file["batches"]) == 1
        batches = str(file["batches"][0]) if fixed else "any" if step == 1 else f"times {step}"
        cells = (
            f"{file['bytes']:,}",
            f"{file['difference']:.1e}",
            "–" if name == "int8" else batches,
        )
        rows.append((f"{file['path']}", *cells, "–" if share is None else f"{share:.2%}"))
    if "network" in record["accuracy"]:
        rows.append(("the network itself", "", "", "", f"{record['accuracy']['network']:.2%}"))
    return rows
