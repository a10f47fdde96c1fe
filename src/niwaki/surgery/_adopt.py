"""A network becomes the smaller one in place, so that everything that holds it (a trainer, an
optimiser's schedule, a callback) goes on with it.

The modules stay the same objects; their parameters are new ones. A parameter that is merely given
smaller data keeps the shape that autograd noted for it while a loss of the step before is alive.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from niwaki.core.errors import SettingError, SurgeryError
from niwaki.graph import Graph
from niwaki.methods.base.cut import Cut
from niwaki.models import PROVENANCE
from niwaki.running import named_state
from niwaki.surgery._shrink import fill
from niwaki.surgery.sizes import follow_sizes


def adopt(model: nn.Module, smaller: nn.Module, cut: Cut) -> None:
    """Make the network of a cut the smaller one, in place.

    Args:
        model: the network that was cut, or a twin of it (a mean of its weights).
        smaller: what the cut made of it; its parameters become those of `model`.

    Raises:
        SurgeryError: the two do not have the same modules (branches or blocks went).
    """
    twins = dict(smaller.named_modules(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    if twins.keys() != modules.keys():
        raise SurgeryError(
            "only units can go from a network in place; branches and blocks need another network"
        )
    for name, module in modules.items():
        _take(module, twins[name])
    follow_sizes(model, cut.graph, cut.plan)
    if hasattr(smaller, PROVENANCE):
        setattr(model, PROVENANCE, getattr(smaller, PROVENANCE))


def cut_twin(twin: nn.Module, smaller: nn.Module, cut: Cut) -> None:
    """Cut a network with the same tensors as the original, such as a running mean of its weights,
    in place: the same units go, and its own weights are repaired by the same mixings.

    Raises:
        SettingError: its tensors are not those of the original.
    """
    state = named_state(twin)
    _refuse_others(state, cut.graph)
    again = copy.deepcopy(smaller)
    fill(again, cut, state)
    for tensor in again.parameters():
        tensor.grad = None
    for name, parameter in again.named_parameters():
        whole = state.get(name)
        parameter.requires_grad_(whole.requires_grad if whole is not None else False)
    adopt(twin, again, cut)


def _take(module: nn.Module, twin: nn.Module) -> None:
    for name, parameter in twin._parameters.items():
        if parameter is not None or name in module._parameters:
            setattr(module, name, parameter)  # not into the dict: recurrent layers keep a list
    for name, buffer in twin._buffers.items():
        if name in module._buffers:
            module._buffers[name] = buffer


def _refuse_others(state: Mapping[str, Tensor], graph: Graph) -> None:
    other = next(
        (
            name
            for name, tensor in graph.state.items()
            if name not in state or state[name].shape != tensor.shape
        ),
        None,
    )
    if other is not None:
        raise SettingError(
            f"ema= is no copy of the network: {other} is missing in it or has another shape"
        )
