"""An optimiser goes on with the smaller model: its parameters are replaced, what it remembers of
them is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from niwaki.core.plan import Plan
from niwaki.graph import Graph


def hand_over(optimizer: Optimizer, graph: Graph, plan: Plan, pruned: nn.Module) -> tuple[str, ...]:
    """Make an optimiser of the graph's model one of the pruned model, in place, so that schedulers
    keep hold of it.

    Every parameter group keeps its settings. State of a parameter's shape (momenta, second
    moments), or of that shape with axes of one (factored second moments), is cut as the parameter
    was; counters stay. A consumer into which a mixing was folded keeps the momenta of the columns
    that stayed. A bias that pruning added joins its layer's other parameters. Parameters that are
    not of this model stay as they are.

    Returns:
        a sentence for every parameter whose state has another form and was dropped; it starts
        afresh.
    """
    smaller = dict(pruned.named_parameters())
    names = {id(parameter): name for name, parameter in graph.original.named_parameters()}
    kept = graph.kept_indices(plan.kept)
    dropped = []
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            name = names.get(id(parameter))
            if name is None:
                continue
            if name not in smaller:  # a mask that is final now
                name = name.removesuffix("_orig")
            group["params"][place] = smaller[name]
            state = optimizer.state.pop(parameter, None)
            if state:
                shape, axes = tuple(parameter.shape), kept.get(name, {})
                if name in graph.state and all(_fits(value, shape) for value in state.values()):
                    optimizer.state[smaller[name]] = {
                        key: _cut(value, shape, axes) for key, value in state.items()
                    }
                elif not axes and shape == tuple(smaller[name].shape):
                    optimizer.state[smaller[name]] = state
                else:
                    dropped.append(
                        f"what {type(optimizer).__name__} remembers of {name} cannot be cut; it "
                        "starts afresh"
                    )
        _add_new(group["params"], smaller, set(names.values()))
    return tuple(dropped)


def _fits(value: Any, shape: Sequence[int]) -> bool:
    """Whether a piece of state is a counter, or has an axis for every axis of the parameter, in
    full or of one.
    """
    if not isinstance(value, Tensor):
        return not isinstance(value, (list, tuple, dict))
    return value.numel() == 1 or (
        value.ndim == len(shape)
        and all(have in (1, size) for have, size in zip(value.shape, shape, strict=True))
    )


def _cut(value: Any, shape: Sequence[int], axes: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.ndim != len(shape):
        return value
    for axis, index in axes.items():
        if value.shape[axis] == shape[axis] > 1:
            value = value.index_select(axis, index.to(value.device))
    return value


def _add_new(params: list[Tensor], smaller: Mapping[str, nn.Parameter], known: set[str]) -> None:
    """Parameters that the original does not have, beside those of the same layer."""
    here = {id(parameter) for parameter in params}
    layers = {
        name.rpartition(".")[0] for name, parameter in smaller.items() if id(parameter) in here
    }
    for name, parameter in smaller.items():
        if name not in known and name.rpartition(".")[0] in layers and id(parameter) not in here:
            params.append(parameter)
