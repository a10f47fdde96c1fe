"""niwaki eval"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType

from niwaki.cli import options
from niwaki.cli.console import before_after, now, results, table
from niwaki.cli.own_code import task_of
from niwaki.cli.setup import Words, refuse_misfit, set_up
from niwaki.core.records import Record
from niwaki.measure import LayerCost, layer_costs, snapshot


def eval_command(
    model: options.ModelOrFolder,
    weights: options.Weights = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    split: options.Split = "test",
    batch_size: options.BatchSize = 200,
    limit: options.Limit = None,
    input_shape: options.InputShape = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    evaluate: options.Evaluate = None,
    json: options.Json = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="also list what each layer costs")
    ] = False,
) -> None:
    """Measure one network, pruned or not: accuracy, loss, parameters, MACs, latency, size.

    For a folder that niwaki wrote, `before` is what was recorded of the original network.

      niwaki eval lenet-300-100 --weights lenet.pth --data fashion-mnist --data-root data

      niwaki eval pruned --data fashion-mnist --data-root data --json

      niwaki eval resnet20 --layers
    """
    task = task_of(evaluate)
    words = Words(
        model, weights, data, data_root, split, batch_size, limit, input_shape, device, seed,
        judged=task is None,
    )  # fmt: skip
    setup = set_up(words)
    refuse_misfit(setup.model, setup.inputs)
    (measured,) = snapshot([setup.model], setup.inputs, setup.batches, task=task)
    before = setup.record.before if setup.record else measured
    settings = {**setup.settings, **(task.described(next(iter(measured.scores))) if task else {})}
    record = Record(before, measured, settings, seed, seconds={})
    if json:
        typer.echo(record.to_json(), nl=False)
    else:
        results.print((before_after if setup.record else now)(record, model))
        if layers:
            results.print(_layers(layer_costs(setup.model, setup.inputs)))


def _layers(costs: list[LayerCost]) -> RenderableType:
    """What each layer costs, and its share of the layers' time."""
    total = sum(cost.ms for cost in costs) or 1.0
    rows = [
        (
            cost.name or "the model",
            cost.kind,
            f"{cost.params:,}",
            f"{cost.macs:,}",
            f"{cost.ms:.3f}",
            f"{cost.ms / total:.1%}",
        )
        for cost in costs
    ]
    return table(
        "layers",
        ("layer", "kind", "parameters", "MACs a sample", "ms a batch", "of the time"),
        rows,
    )
