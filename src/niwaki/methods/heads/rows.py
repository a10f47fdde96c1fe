"""A network in which the rows of some heads' projections are others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from niwaki.graph import Graph
from niwaki.graph.heads import Head
from niwaki.running import duplicate


def with_rows(graph: Graph, heads: Iterable[tuple[Head, int, Tensor]]) -> Graph:
    """The graph of a copy in which the rows of heads are multiplied by matrices (d, d)."""
    changed: dict[str, Tensor] = {}
    for head, axis, matrix in heads:
        index = torch.tensor(head.rows, device="cpu")
        for name, on in ((head.weight, axis), (head.bias, 0)):
            if name is not None:
                whole = changed.get(name)
                whole = graph.state[name].detach().clone() if whole is None else whole
                changed[name] = _multiplied(whole, on, index.to(whole.device), matrix)
    model = duplicate(graph.model, share=True)
    for name, parameter in model.named_parameters():
        if name in changed:
            parameter.data = changed[name]
    return replace(graph, model=model, given=graph.original)


def _multiplied(tensor: Tensor, axis: int, index: Tensor, matrix: Tensor) -> Tensor:
    """Some rows along an axis multiplied by a matrix, in float64: (…, out, …) as before."""
    rows = tensor.index_select(axis, index).double()
    mixed = torch.tensordot(matrix.to(tensor.device), rows, dims=([1], [axis]))
    return tensor.index_copy_(axis, index, mixed.movedim(0, axis).to(tensor.dtype))
