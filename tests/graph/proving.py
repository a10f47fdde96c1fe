"""A network is pruned, and held against its masked original by a path that is none of niwaki's."""

from __future__ import annotations

import copy
from typing import Any

import oracle
import torch
from torch import nn

import niwaki
from niwaki.graph import Role
from niwaki.running import named_state


def proved(
    model: nn.Module, inputs: Any, *, silence: bool = True, **settings: Any
) -> niwaki.Result:
    """A pruned network that niwaki's check and the oracle both let pass.

    Where units are read by plain weights alone, the oracle zeroes the weights that read them; else
    units are silenced where they are written, which is the same where zero changes no statistics;
    `silence` says whether that is so.
    """
    result = niwaki.prune(model.eval(), inputs, compensation="none", **settings)
    graph = niwaki.trace(model, inputs)
    simple = oracle.is_simple(graph, result.plan)
    full = oracle.masked(graph, result.plan, {}) if simple else silenced(graph, result.plan)
    if simple or silence:
        expected = oracle.outputs(full, inputs)
        assert oracle.distance(expected, oracle.outputs(result.model, inputs)) < 1e-4
    return result


def left(model: nn.Module, result: niwaki.Result) -> float:
    """The share of the parameters that is left."""
    return niwaki.count_params(result.model) / niwaki.count_params(model)


def silenced(graph: niwaki.Graph, plan: niwaki.Plan) -> nn.Module:
    """A copy at full size in which the layers that write what went away write zeros."""
    model = copy.deepcopy(graph.model)
    state = named_state(model)
    for name, units in plan.kept.items():
        gone = torch.ones(graph[name].width, dtype=torch.bool)
        gone[list(units)] = False
        for piece in (p for p in graph[name].slices if p.role is not Role.CONSUMER):
            index = (gone[piece.units] & (piece.units >= 0)).nonzero().squeeze(1)
            state[piece.tensor].data.index_fill_(piece.axis, index, 0)
    return model
