"""A repair is kept only where it does not lose against plain pruning, on inputs that it was not
fitted to.

The original and the repaired network run side by side. Where a group is read, the reader's result y
is held against the original's y₀, with the group's mixing and, from the same values, plain:

    e(t) = Σ |y_plain + t·(y_mixed - y_plain) - y₀|² / Σ |y₀ - mean(y₀)|²

which is a parabola in t, so that one run says it for every t. The largest t of 1, 1/2, 1/4 and 0
with e(t) ≤ e(0) is taken. Then the outputs are held against those of plain pruning; if they are
worse, the groups whose repairs do it are found by halving, and those repairs weakened or dropped.
On a few example inputs, n of them, an error that is larger by less than 1/√n counts as chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.held_out import Split
from niwaki.methods.base.trial import Parabola, Trial, weakened
from niwaki.running import preserved_rng, tensors_in


def guarded(cut: Cut, graph: Graph, plan: Plan, split: Split) -> Cut:
    """The mixings that do not lose against plain pruning, with notes on those that did."""
    state = [tensor.device.type for tensor in (*graph.state.values(), *tensors_in(split.held))]
    if "meta" in state or not cut.mixings:
        return cut
    with preserved_rng(), torch.no_grad():
        trial = Trial(graph, plan, cut.mixings, split.held, split.margin)
        weights = trial.at_readers()
        weights = trial.at_outputs(weights)
    return _noted(cut, plan, weights, trial.errors, split.source)


def _noted(
    cut: Cut,
    plan: Plan,
    weights: Mapping[str, float],
    errors: Mapping[str, Parabola],
    source: str,
) -> Cut:
    mixings, notes, residuals = dict(cut.mixings), dict(cut.notes), dict(cut.residuals)
    dropped = [name for name in cut.mixings if not weights.get(name)]
    weaker = [name for name in cut.mixings if 0 < weights.get(name, 0.0) < 1]
    for name in dropped:
        del mixings[name]
        notes[name] = f"not repaired: on {source} the repair lost against plain pruning"
    for name in weaker:
        mixings[name] = weakened(mixings[name], plan.kept[name], weights[name])
        notes[name] += f"; weakened to {weights[name]:g}, as on {source} it lost at full strength"
    for name in {*dropped, *weaker} & residuals.keys():
        residuals[name] = max(0.0, errors[name](weights.get(name, 0.0)))
    remarks = cut.remarks
    if dropped or weaker:
        remarks += (
            f"guard: on {source}, {len(dropped)} of {len(cut.mixings)} repairs lost against plain "
            f"pruning and were dropped, {len(weaker)} weakened",
        )
    return replace(cut, mixings=mixings, notes=notes, residuals=residuals, remarks=remarks)
