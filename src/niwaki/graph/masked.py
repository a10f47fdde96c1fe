"""The full-size network in which every reader sees the kept units and their mixings only, operator
by operator.

Where an operator sums over channels, it is given the operand with dropped units zeroed, or with all
units made from the kept ones by the mixing. Where one normalises over channels, it is run on the
kept ones alone. Nothing here cuts a tensor of the model, so that surgery can be held against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph.channel_graph import Graph
from niwaki.graph.inference import Read
from niwaki.graph.offsets import weight_of
from niwaki.graph.operators import OWN_SIZES, is_attention, over_image
from niwaki.graph.terms import Var, keep_mask, leaves, resolve, transform
from niwaki.running import Op, Ref


class Masked:
    """Runs operators so that they see no dropped unit.

    Attributes:
        mixings: group name → mixing; one that is added later counts from the next operator on.
    """

    def __init__(self, graph: Graph, plan: Plan, mixings: Mapping[str, Mixing]) -> None:
        self._graph = graph
        self._axes = graph.inference.axes
        self._masks = graph.masks(plan.kept)
        self._names = {graph.variables[name]: name for name in plan.kept}
        self.mixings = dict(mixings)
        self._matrices: dict[int, tuple[Mixing, Tensor]] = {}  # with what the number stands for
        self._reads: dict[int, list[Read]] = defaultdict(list)
        for read in graph.inference.reads:
            if any(var in self._masks for var in leaves(read.term)):
                self._reads[read.position].append(read)

    def touches(self, position: int) -> bool:
        """Whether an operator reads units of which some are dropped."""
        return position in self._reads

    def run(self, position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator, with its operands masked where it reads them."""
        reads = self._reads.get(position, [])
        statistics = [read for read in reads if read.statistics]
        if statistics:
            return self._narrowed(statistics, op, args, kwargs)
        operands = list(args)
        constants = []
        for read in reads:
            operand = operands[read.slot]
            operands[read.slot] = self._masked(read, operand)
            shifts = self._shifts(read)
            if shifts and over_image(op):
                constants.append(self._everywhere(read, shifts, op, operands))
            elif shifts:
                operands[read.slot] += _spread_shifts(read, shifts, torch.zeros_like(operand))
        result = op.func(*operands, **self._scaled(op, kwargs))
        for constant in constants:
            result += constant
        return result

    def _scaled(self, op: Op, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of an attention that divides by the root of its queries' width: of the kept
        one.
        """
        if not is_attention(op) or kwargs.get("scale") is not None:
            return kwargs
        width = self._axes[op.first][-1]
        kept = int(keep_mask(width, self._masks).sum())
        return kwargs if kept == width.size else {**kwargs, "scale": kept**-0.5}

    def _cast(self, mixing: Mixing, like: Tensor) -> Tensor:
        """A mixing's matrix where a value is, and of its type."""
        cast = self._matrices.get(id(mixing))
        if cast is None or cast[1].dtype != like.dtype or cast[1].device != like.device:
            cast = (mixing, mixing.matrix.to(like.device, like.dtype))
            self._matrices[id(mixing)] = cast
        return cast[1]

    def _mixing(self, read: Read, var: Var) -> Mixing | None:
        mixing = self.mixings.get(self._names[var])
        return mixing and mixing.at(weight_of(self._graph, read))

    def _masked(self, read: Read, operand: Tensor) -> Tensor:
        summed = set(leaves(read.term))

        def change(var: Var, part: Tensor, axis: int) -> Tensor:
            if var not in summed or var not in self._masks:
                return part
            mask = self._masks[var].to(part.device)
            shape = [-1 if i == axis else 1 for i in range(part.ndim)]
            mixing = self._mixing(read, var)
            if mixing is None:
                return part.masked_fill(~mask.view(shape), 0)
            kept = part.index_select(axis, mask.nonzero().squeeze(1))
            return _along(kept, axis, self._cast(mixing, part))

        # in the operand's own memory layout, which the operator may count on (a view)
        return torch.empty_like(operand).copy_(transform(read.whole, operand, read.axis, change))

    def _shifts(self, read: Read) -> dict[Var, Tensor]:
        mixings = {var: self._mixing(read, var) for var in leaves(read.term) if var in self._masks}
        return {
            var: mixing.shift
            for var, mixing in mixings.items()
            if mixing is not None and mixing.shift is not None
        }

    def _everywhere(
        self, read: Read, shifts: Mapping[Var, Tensor], op: Op, operands: list[Any]
    ) -> Tensor:
        """What a convolution makes of constant channels away from any border: (1, out, 1, …)."""
        image, weight = operands[read.slot], operands[op.place("weight")]
        reach = [
            step * (size - 1) + 1
            for step, size in zip(op["dilation"], weight.shape[2:], strict=True)
        ]
        constant = _spread_shifts(read, shifts, image.new_zeros(1, image.shape[1], *reach))
        alone = {"input": constant, "bias": None, "padding": [0] * len(op["padding"])}
        result: Tensor = op.func(*op.replaced(alone, operands))
        return result

    def _narrowed(
        self, reads: list[Read], op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operator that takes statistics, run on the kept channels alone; results are spread out
        to full size again.
        """
        summed = {
            var: self._masks[var]
            for read in reads
            for var in leaves(read.term)
            if var in self._masks
        }
        operands = list(args)
        for slot, ref in enumerate(op.args):
            if isinstance(ref, Ref):
                for axis, index in self._kept_positions(ref, summed).items():
                    operands[slot] = operands[slot].index_select(
                        axis, index.to(operands[slot].device)
                    )
        states = OWN_SIZES.get(op)
        if states is not None:
            operands = list(states(op, operands))
        narrow, full = op.func(*operands, **kwargs), op.func(*args, **kwargs)
        if isinstance(full, Tensor):
            return self._spread(op.result, narrow, full, summed)
        return tuple(
            self._spread(ref, part, whole, summed) if ref is not None else whole
            for ref, part, whole in zip(op.outputs, narrow, full, strict=True)
        )

    def _kept_positions(self, ref: Ref, summed: Mapping[Var, Tensor]) -> dict[int, Tensor]:
        """Axis → positions that stay, of the axes that lose some; others may have another size than
        was recorded.
        """
        masks = {axis: keep_mask(term, summed) for axis, term in enumerate(self._axes[ref])}
        return {
            axis: mask.nonzero().squeeze(1) for axis, mask in masks.items() if not bool(mask.all())
        }

    def _spread(
        self, ref: Ref, narrow: Tensor, full: Tensor, summed: Mapping[Var, Tensor]
    ) -> Tensor:
        """A narrow result at the kept positions of a full one, whose memory layout the next
        operators may count on.
        """
        if narrow.shape == full.shape:
            return narrow
        full.zero_()
        kept = self._kept_positions(ref, summed)
        index = [
            kept.get(axis, torch.arange(size, device="cpu")).to(full.device)
            for axis, size in enumerate(full.shape)
        ]
        full[torch.meshgrid(*index, indexing="ij")] = narrow
        return full


def _along(kept: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """matrix (width, kept) · the kept channels along one axis: (…, kept, …) → (…, width, …)."""
    if axis == kept.ndim - 1:
        return kept @ matrix.T
    mixed = matrix @ kept.flatten(axis + 1)
    return mixed.view(*mixed.shape[: axis + 1], *kept.shape[axis + 1 :])


class Folded(Masked):
    """The same, but a plain convolution reads the kept units only, through weights with the mixing
    folded in: quicker.

    Attributes:
        folded: operator → the weights and bias that it was last run with, and what they were made
            of: for others of the same graph and plan to share.
    """

    folded: dict[tuple[int, bool], tuple[tuple[Any, ...], Tensor, Tensor | None]]

    def __init__(
        self, graph: Graph, plan: Plan, mixings: Mapping[str, Mixing], like: Folded | None = None
    ) -> None:
        super().__init__(graph, plan, mixings)
        self.folded = {} if like is None else like.folded

    def run(self, position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator, with its operands masked where it reads them."""
        reads = self._reads.get(position, [])
        if len(reads) != 1 or not over_image(op) or op["transposed"] or op["groups"] != 1 or kwargs:
            return super().run(position, op, args, kwargs)
        var = resolve(reads[0].whole)
        mixing = self._mixing(reads[0], var) if isinstance(var, Var) else None
        if not isinstance(var, Var) or var not in self._masks:
            return super().run(position, op, args, kwargs)
        image, weight, bias = args[:3]
        kept = self._masks[var].nonzero().squeeze(1).to(image.device)
        laid_alike = image.is_contiguous() and weight.is_contiguous()
        if mixing is None and not laid_alike:
            return super().run(position, op, args, kwargs)
        key = (position, mixing is None)
        made_of = (mixing, weight, bias)
        known = self.folded.get(key)
        if known is None or any(a is not b for a, b in zip(known[0], made_of, strict=True)):
            known = self.folded[key] = (made_of, *_folded(mixing, kept, weight, bias))
        _, folded, bias = known
        if laid_alike:
            return op.func(image.index_select(1, kept), folded, bias, *args[3:])
        # channels last: to pick some costs more than to multiply all, the dropped ones by zero
        whole = torch.zeros_like(weight)
        return op.func(image, whole.index_copy_(1, kept.to(weight.device), folded), bias, *args[3:])


def _folded(
    mixing: Mixing | None, kept: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """A convolution's weight (out, kept, …) and bias with a mixing folded in."""
    if mixing is None:
        return weight.index_select(1, kept.to(weight.device)), bias
    matrix = mixing.matrix.to(weight.device, weight.dtype)
    folded = torch.tensordot(weight, matrix, dims=([1], [0])).movedim(-1, 1)
    if mixing.shift is not None:
        table = weight.flatten(2).sum(2)
        constant = table @ mixing.shift.to(table.device, table.dtype)
        bias = constant if bias is None else bias + constant
    return _plainly_laid(folded), bias


def _plainly_laid(weight: Tensor) -> Tensor:
    """A copy whose strides are those of a new tensor: with a size of one among its axes, a weight
    may count as contiguous and as channels last both, and a convolution then lays its result out
    the other way.
    """
    return torch.empty(weight.shape, dtype=weight.dtype, device=weight.device).copy_(weight)


def _spread_shifts(read: Read, shifts: Mapping[Var, Tensor], zeros: Tensor) -> Tensor:
    """The sum of the shifts of all variables, each spread over the axis that is read."""
    total = torch.zeros_like(zeros)
    for wanted, shift in shifts.items():

        def fill(
            var: Var, part: Tensor, axis: int, wanted: Var = wanted, shift: Tensor = shift
        ) -> Tensor:
            if var is not wanted:
                return part
            shape = [-1 if i == axis else 1 for i in range(part.ndim)]
            return part + shift.to(part.device, part.dtype).view(shape)

        total += transform(read.whole, zeros, read.axis, fill)
    return total
