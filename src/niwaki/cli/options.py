"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="network: a listed name (resnet56, vgg16:classifier=two-layer), or "
        "package.module:factory for your own"
    ),
]
ModelOrFolder = Annotated[
    str,
    typer.Argument(
        help="network: a listed name (resnet56), package.module:factory for your own, or a folder "
        "that niwaki wrote"
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="file of weights (.safetensors, .pth); no code in it is run")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="data set: digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder, or "
        "package.module:function of yours that returns batches"
    ),
]
Evaluate = Annotated[
    str | None,
    typer.Option(
        help="measure this and not accuracy: package.module:function of yours, which takes the "
        "network and returns a number, or a dict of numbers by name"
    ),
]
DataRoot = Annotated[Path | None, typer.Option(help="folder that holds the data set's files")]
Split = Annotated[
    str, typer.Option(help="split that accuracy is measured on: test, validation or train")
]
BatchSize = Annotated[int, typer.Option(help="images per batch in evaluation", min=1)]
Limit = Annotated[int | None, typer.Option(help="evaluate on at most this many images", min=1)]
Calibration = Annotated[
    int | None,
    typer.Option(
        help="how many training inputs to draw (by the seed) for methods that look at activations",
        min=1,
    ),
]
InputShape = Annotated[
    str | None, typer.Option(help="shape of one input without the batch axis: 3,224,224")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps")]
Seed = Annotated[int, typer.Option(help="seed of all random numbers", min=0, max=2**63 - 1)]
Json = Annotated[
    bool, typer.Option("--json", help="print only the record, as JSON, on standard output")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output folder")]
