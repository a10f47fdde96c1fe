"""What a pruned network must compute, found without niwaki's own check: the original with other weights, run plainly.

A unit that goes is one whose columns in every consumer are zero; a mixing adds its columns to those of kept units. Both
are done index by index on a copy of the original, with no view, no terms and no tape.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.compensation import Mixing
from niwaki.graph import Graph, Role, call, named_state, tensors_in
from niwaki.plan import Plan


def is_simple(graph: Graph, plan: Plan) -> bool:
    """Whether all that loses units is read by plain weights only."""
    return all(graph[name].fold_obstacle is None for name in plan.kept)


def masked(graph: Graph, plan: Plan, mixings: Mapping[str, Mixing]) -> nn.Module:
    """A copy of the original at full size that computes what the pruned model must."""
    model = copy.deepcopy(graph.model)
    state = named_state(model)
    for name, units in plan.kept.items():
        matrix = mixings[name].matrix if name in mixings else Mixing.selecting(plan[name].width, units).matrix
        for piece in graph[name].of_role(Role.CONSUMER):
            tensor = state[piece.tensor]
            tensor.data = _mixed(tensor.detach(), piece.axis, piece.units.tolist(), list(units), matrix)
    return model


def _mixed(tensor: Tensor, axis: int, owner: list[int], kept: list[int], matrix: Tensor) -> Tensor:
    columns = tensor.movedim(axis, 0)
    out = columns.clone()
    indices: dict[int, list[int]] = {}
    for index, unit in enumerate(owner):
        if unit >= 0:
            indices.setdefault(unit, []).append(index)
            out[index] = 0
    for unit, own in indices.items():
        for place, keeper in enumerate(kept):
            factor = float(matrix[unit, place])
            if factor:
                for source, target in zip(own, indices[keeper], strict=True):
                    out[target] += factor * columns[source]
    return out.movedim(0, axis).contiguous()


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All tensors that a model returns, on inputs of its own."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return list(tensors_in(call(model, copy.deepcopy(inputs))))


def runs(model: nn.Module, inputs: Any) -> bool:
    """Whether the model can be called at all."""
    try:
        outputs(model, inputs)
    except (RuntimeError, AssertionError):
        return False
    return True


def distance(wanted: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference as a share of the largest entry; infinite where the shapes differ."""
    if [t.shape for t in wanted] != [t.shape for t in found]:
        return float("inf")
    gaps = [
        ((a.double() - b.double()).abs().max() / a.double().abs().max().clamp(min=1e-30)).item()
        for a, b in zip(wanted, found, strict=True)
    ]
    return max(gaps)
