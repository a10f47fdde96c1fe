"""A network with learned factors, and the plain one that computes the same.

Factors are torch parametrisations of the tensors that they multiply, so that modules, their code
and their classes' arguments stay as they are. Folding writes the products into the weights, which
is the same multiplication that every forward pass made, and so changes no bit.

Example: a weight column (3, -1) with the factor 0.5 computes as (1.5, -0.5); folded, it is that.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Slice
from niwaki.methods.factors._places import Over, chosen

Start = Literal["ones", "normal"]


class Scaled(nn.Module):
    """A tensor times one factor an index of an axis.

    `factor` (width,) is shared by all tensors of one group or branch; an index of no unit has the
    factor 1.
    """

    index: Tensor

    def __init__(self, name: str, factor: nn.Parameter, piece: Slice) -> None:
        super().__init__()
        self.name, self.factor, self.axis = name, factor, piece.axis
        index = torch.where(piece.units >= 0, piece.units, len(factor))
        self.register_buffer("index", index.to(factor.device), persistent=False)

    def forward(self, tensor: Tensor) -> Tensor:
        """The product, of the tensor's shape."""
        factors = torch.cat([self.factor, self.factor.new_ones(1)])[self.index]
        if not tensor.ndim:
            return tensor * factors[0]
        return tensor * factors.view(-1, *[1] * (tensor.ndim - 1 - self.axis))


def with_factors(
    graph: Graph, over: Over = "units", *, start: Start = "ones", seed: int = 0
) -> nn.Module:
    """A copy of the graph's model with a factor on every unit that weights alone read, or on every
    residual branch.

    Args:
        start: factors of one, which change nothing; or drawn from N(0, 1).

    Raises:
        SettingError: there is no place for any.
    """
    model, generator = copy.deepcopy(graph.model), torch.Generator().manual_seed(seed)
    for module in model.modules():
        _own_class(module)
    for place in chosen(graph, over):
        like = graph.state[place.slices[0].tensor]
        drawn = torch.randn(place.width, generator=generator, device="cpu")
        values = torch.ones_like(drawn) if start == "ones" else drawn
        factor = nn.Parameter(values.to(like.device, like.dtype))
        for piece in place.slices:
            owner, _, name = piece.tensor.rpartition(".")
            scaled = Scaled(place.name, factor, piece)
            parametrize.register_parametrization(model.get_submodule(owner), name, scaled)
    return model


def _own_class(module: nn.Module) -> None:
    """A class of its own for a parametrised copy: torch adds and takes away attributes of the class
    of such a module, which a deep copy shares with its original.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        own = {
            key: value
            for key, value in vars(shared).items()
            if key not in ("__dict__", "__weakref__")
        }
        module.__class__ = type(shared.__name__, shared.__bases__, own)


def factors_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The factors by the name of their group or branch."""
    return {module.name: module.factor for module in model.modules() if isinstance(module, Scaled)}


def others(model: nn.Module) -> list[nn.Parameter]:
    """All trainable parameters but the factors: what an optimiser moves beside a proximal step."""
    factors = {id(factor) for factor in factors_of(model).values()}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in factors]


def fold_factors(model: nn.Module) -> nn.Module:
    """A copy without factors that computes the same, with the state dict of the network before."""
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        _own_class(module)
        steps_of: Any = getattr(module, "parametrizations", {})
        for name in [key for key, steps in dict(steps_of).items() if _all_scaled(steps)]:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return folded


def _all_scaled(steps: Any) -> bool:
    return all(isinstance(step, Scaled) for step in steps)


def plan_of_zeros(graph: Graph, model: nn.Module) -> Plan:
    """The plan that takes the units whose factor is exactly zero, of the graph that the factors
    were put on; a group keeps one unit at least.
    """
    groups: dict[str, Kept] = {}
    for name, factor in factors_of(model).items():
        kept = factor.detach().cpu().nonzero()[:, 0].tolist() or [0]
        if name in {group.name for group in graph.groups} and len(kept) < len(factor):
            groups[name] = Kept(len(factor), tuple(kept))
    return Plan(groups)


def zero_branches(model: nn.Module) -> tuple[str, ...]:
    """Branches whose factor is exactly zero, as `niwaki.drop_branches(…, names=…)` takes them."""
    factors = factors_of(model).items()
    return tuple(name for name, factor in factors if len(factor) == 1 and not factor.any())
