"""niwaki eval"""

from __future__ import annotations

import typer

from niwaki.cli import options
from niwaki.cli.console import before_after, results
from niwaki.cli.setup import Words, set_up
from niwaki.measure import snapshot
from niwaki.records import Record


def evaluate(
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
    json: options.Json = False,
) -> None:
    """Measure one network, pruned or not: accuracy, loss, parameters, MACs, latency, size.

    Of a folder that niwaki wrote, `before` is what was recorded of the original; of any other model it is the model itself.

      niwaki eval lenet-300-100 --weights lenet.pth --data fashion-mnist --data-root data

      niwaki eval pruned --data fashion-mnist --data-root data --json
    """
    setup = set_up(Words(model, weights, data, data_root, split, batch_size, limit, input_shape, device, seed))
    (now,) = snapshot([setup.model], setup.inputs, setup.batches)
    before = setup.record.before if setup.record else now
    record = Record(before, now, setup.settings, seed, seconds={})
    if json:
        typer.echo(record.to_json(), nl=False)
    else:
        results.print(before_after(record, model))
