"""niwaki inspect"""

from __future__ import annotations

import typer

from niwaki.cli import options
from niwaki.cli.setup import Words, set_up
from niwaki.graph import trace


def inspect(
    model: options.ModelOrFolder,
    weights: options.Weights = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
) -> None:
    """List the groups of channels that can be pruned, and what keeps its size and why.

    niwaki inspect resnet20

    niwaki inspect mypackage.nets:build --input-shape 3,224,224
    """
    setup = set_up(Words(model, weights, input_shape=input_shape, device=device))
    typer.echo(str(trace(setup.model, setup.inputs)))
