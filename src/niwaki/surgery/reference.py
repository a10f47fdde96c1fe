"""What a pruned model must compute: the full-size model in which every reader sees the kept units and their mixings only.

The recorded operators of the original are played back at full size. Where one sums over channels, it is given the operand
with dropped units zeroed, or with all units made from the kept ones by the mixing. Where one normalises over channels, it
is run on the kept ones alone. Nothing here shares code with the cutting of tensors, so that each proves the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from niwaki.compensation import Mixing
from niwaki.graph import Graph, Inputs, Op, Ref, play
from niwaki.graph.inference import Read
from niwaki.graph.terms import Var, keep_mask, leaves, transform
from niwaki.plan import Plan

Watch = Callable[[int, Op, Any], None]


def reference_outputs(
    graph: Graph, plan: Plan, mixings: Mapping[str, Mixing], inputs: Inputs, watch: Watch | None = None
) -> list[Tensor]:
    """The output tensors of the masked and mixed full-size model.

    Args:
        inputs: of the shapes that the graph was traced on.
        watch: called with (position, operator, result) behind every operator.
    """
    masked = _Masked(graph, plan, mixings)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = masked.run(position, op, args, kwargs)
        if watch is not None:
            watch(position, op, result)
        return result

    return play(graph.inference.tape, graph.state, inputs, step)


class _Masked:
    """Runs operators so that they see no dropped unit."""

    def __init__(self, graph: Graph, plan: Plan, mixings: Mapping[str, Mixing]) -> None:
        self._axes = graph.inference.axes
        self._masks = graph.masks(plan.kept)
        self._matrices = {graph.variables[name]: mixing.matrix for name, mixing in mixings.items()}
        self._reads: dict[int, list[Read]] = defaultdict(list)
        for read in graph.inference.reads:
            if any(var in self._masks for var in leaves(read.term)):
                self._reads[read.position].append(read)

    def run(self, position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator, with its operands masked where it reads them."""
        reads = self._reads[position]
        statistics = [read for read in reads if read.statistics]
        if statistics:
            return self._narrowed(statistics, op, args, kwargs)
        operands = list(args)
        for read in reads:
            operands[read.slot] = self._masked(read, operands[read.slot])
        return op.func(*operands, **kwargs)

    def _masked(self, read: Read, operand: Tensor) -> Tensor:
        summed = set(leaves(read.term))

        def change(var: Var, part: Tensor, axis: int) -> Tensor:
            if var not in summed or var not in self._masks:
                return part
            mask = self._masks[var].to(part.device)
            shape = [-1 if i == axis else 1 for i in range(part.ndim)]
            if var not in self._matrices:
                return part.masked_fill(~mask.view(shape), 0)
            kept = part.index_select(axis, mask.nonzero().squeeze(1))
            matrix = self._matrices[var].to(part.device, part.dtype)
            return (kept.movedim(axis, -1) @ matrix.T).movedim(-1, axis)

        # in the operand's own memory layout, which the operator may count on (a view)
        return torch.empty_like(operand).copy_(transform(read.whole, operand, read.axis, change))

    def _narrowed(self, reads: list[Read], op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator that takes statistics, run on the kept channels alone; results are spread out to full size again."""
        summed = {var: self._masks[var] for read in reads for var in leaves(read.term) if var in self._masks}
        operands = list(args)
        for slot, ref in enumerate(op.args):
            if isinstance(ref, Ref):
                for axis, index in enumerate(self._kept_positions(ref, summed)):
                    operands[slot] = operands[slot].index_select(axis, index.to(operands[slot].device))
        _restate_sizes(op, operands)
        narrow, full = op.func(*operands, **kwargs), op.func(*args, **kwargs)
        if isinstance(full, Tensor):
            return self._spread(op.result, narrow, full, summed)
        return tuple(
            self._spread(ref, part, whole, summed) if ref is not None else whole
            for ref, part, whole in zip(op.outputs, narrow, full, strict=True)
        )

    def _kept_positions(self, ref: Ref, summed: Mapping[Var, Tensor]) -> list[Tensor]:
        return [keep_mask(term, summed).nonzero().squeeze(1) for term in self._axes[ref]]

    def _spread(self, ref: Ref, narrow: Tensor, full: Tensor, summed: Mapping[Var, Tensor]) -> Tensor:
        """A narrow result at the kept positions of a full one, whose memory layout the next operators may count on."""
        if narrow.shape == full.shape:
            return narrow
        full.zero_()
        index = [positions.to(full.device) for positions in self._kept_positions(ref, summed)]
        full[torch.meshgrid(*index, indexing="ij")] = narrow
        return full


def _restate_sizes(op: Op, operands: list[Any]) -> None:
    """Integer arguments that repeat an operand's size."""
    if op.name == "aten.native_layer_norm":
        operands[1] = list(operands[0].shape[-len(operands[1]) :])
    elif op.name == "aten.native_group_norm":
        operands[4] = operands[0].shape[1]
