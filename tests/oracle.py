"""What a pruned network must compute, found without niwaki's own check: the original with other
weights, run plainly.

A unit that goes is one whose columns in every consumer are zero; a mixing adds its columns to those
of kept units. Both are done index by index on a copy of the original, with no view, no terms and no
tape.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Graph, Group, Role
from niwaki.running import call, named_state, tensors_in


def is_simple(graph: Graph, plan: Plan) -> bool:
    """Whether all that loses units is read by plain weights only."""
    return all(plainly_read(graph[name]) for name in plan.kept)


def plainly_read(group: Group) -> bool:
    """Whether the units of a group are read by weights alone, and no statistics are taken over
    them.
    """
    return group.fold_obstacle is None and group.normalised is None


def masked(graph: Graph, plan: Plan, mixings: Mapping[str, Mixing]) -> nn.Module:
    """A copy of the original at full size that computes what the pruned model must."""
    model = copy.deepcopy(graph.model)
    state = named_state(model)
    for name, units in plan.kept.items():
        matrix = (
            mixings[name].matrix
            if name in mixings
            else Mixing.selecting(plan[name].width, units).matrix
        )
        for piece in graph[name].of_role(Role.CONSUMER):
            tensor = state[piece.tensor]
            reader = mixings[name].at(piece.tensor) if name in mixings else Mixing(matrix)
            if reader.shift is not None:
                _add_behind(
                    model, tensor, _constant(tensor, piece.axis, piece.units.tolist(), reader.shift)
                )
            tensor.data = _mixed(
                tensor.detach(), piece.axis, piece.units.tolist(), list(units), reader.matrix
            )
    return model


def _constant(tensor: Tensor, axis: int, owner: list[int], shift: Tensor) -> Tensor:
    """What a layer puts out, channel by channel, of inputs that are the shift of their unit
    everywhere.
    """
    columns = tensor.detach().movedim(axis, 0)
    out = torch.zeros(columns.shape[1], dtype=torch.float64)
    for index, unit in enumerate(owner):
        if unit >= 0:
            out += float(shift[unit]) * columns[index].double().reshape(len(out), -1).sum(1)
    return out


def _add_behind(model: nn.Module, weight: Tensor, constant: Tensor) -> None:
    """Let every layer with this weight add a constant to its output."""
    for module in model.modules():
        for name, own in module.named_parameters(recurse=False):
            if own is weight and isinstance(module, nn.RNNBase | nn.RNNCellBase):
                gates = module.get_parameter(name.replace("weight", "bias"))
                gates.data = gates.detach() + constant.to(gates.dtype)
        if getattr(module, "weight", None) is weight:
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):  # torch's attention reads it without calling the module
                bias.data = bias.detach() + constant.to(bias.dtype)
                continue
            last = isinstance(module, nn.Linear)

            def add(_: nn.Module, __: Any, output: Tensor, last: bool = last) -> Tensor:
                shape = [-1] if last else [1, -1, *[1] * (output.ndim - 2)]
                return output + constant.to(output.dtype).view(shape)

            module.register_forward_hook(add, prepend=True)  # what the layer itself puts out


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
