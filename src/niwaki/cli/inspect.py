"""niwaki inspect"""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from niwaki.cli import options
from niwaki.cli.console import messages
from niwaki.cli.setup import Words, set_up
from niwaki.core.records import check_file, write_text_atomic
from niwaki.graph import outline, trace
from niwaki.report import channels_dot, channels_html


def inspect(
    model: options.ModelOrFolder,
    weights: options.Weights = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    dot: Annotated[
        Path | None, typer.Option(help="also write the groups as a Graphviz file")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="also write the groups as an HTML page")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files that niwaki wrote")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="print only the groups, as JSON, on standard output")
    ] = False,
) -> None:
    """List the groups of channels that can be pruned, what each costs, and which channels cannot be
    pruned and why.

    niwaki inspect resnet20 --html channels.html

    niwaki inspect mypackage.nets:build --input-shape 3,224,224 --dot channels.dot
    """
    for path, marks in ((dot, (b"digraph",)), (html, (b": channel groups</title>",))):
        if path is not None:
            check_file(path, overwrite, *marks)
    setup = set_up(Words(model, weights, input_shape=input_shape, device=device))
    graph = trace(setup.model, setup.inputs)
    channels = outline(graph)
    for path, draw in ((dot, channels_dot), (html, channels_html)):
        if path is not None:
            write_text_atomic(path, draw(channels))
            messages.print(f"written: {path}", markup=False)
    if json:
        typer.echo(json_text.dumps(channels.to_dict(), indent=1))
    else:
        typer.echo(str(graph))
