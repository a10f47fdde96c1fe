"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="a listed name (resnet56, vgg16:classifier=two-layer), package.module:factory"
    ),
]
ModelOrFolder = Annotated[
    str, typer.Argument(help="a listed name, package.module:factory, or a folder that niwaki wrote")
]
Weights = Annotated[
    Path | None, typer.Option(help="weights file (.safetensors, .pth); never runs code from it")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder, or "
        "package.module:function that gives batches"
    ),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        help="package.module:function, network to a number or to numbers by name, in the place of "
        "accuracy"
    ),
]
DataRoot = Annotated[Path | None, typer.Option(help="folder that holds the data set's files")]
Split = Annotated[str, typer.Option(help="what accuracy is measured on: test, validation or train")]
BatchSize = Annotated[int, typer.Option(help="images a batch in evaluation", min=1)]
Limit = Annotated[int | None, typer.Option(help="at most so many images in evaluation", min=1)]
Calibration = Annotated[
    int | None,
    typer.Option(
        help="training inputs for methods that look at activations, drawn by the seed", min=1
    ),
]
InputShape = Annotated[str | None, typer.Option(help="one input without the batch axis: 3,224,224")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Seed = Annotated[int, typer.Option(help="seed of everything random", min=0, max=2**63 - 1)]
Json = Annotated[bool, typer.Option("--json", help="print the record alone on standard output")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output folder")]
