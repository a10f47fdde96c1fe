"""Linear and convolution layers that hold and multiply only some blocks of their weight.

Rows that keep the same columns are one dense product over just these columns; nothing else is
stored or computed. The parameter `weight` is one vector with the kept blocks behind one another.
Where the many small products take longer than one large one, the layer can put its blocks into a
dense weight and multiply by that (`dense = True`): what is saved and trained stays the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.running import duplicate


class BlockSparse(nn.Module):
    """What both kinds share: the blocks of a weight (out, in, …), and the products that they make.

    Attributes:
        weight: the kept weights, (kept,).
        blocks: which these are.
        dense: whether the product is done with a dense weight.
    """

    def __init__(self, like: nn.Linear | nn.Conv2d, blocks: LayerBlocks) -> None:
        super().__init__()
        dense = like.weight.detach()
        self.blocks, self.dense, self._shape = blocks, False, tuple(dense.shape)
        self._made: tuple[int, Tensor] | None = None
        places = blocks.mask(dense.reshape(*dense.shape[:2], -1)[..., 0]).cpu()
        self._pieces = _pieces(places)
        inner = dense.reshape(*dense.shape[:2], -1)
        parts = [inner[rows][:, columns].reshape(-1) for rows, columns in self._pieces]
        self.weight = nn.Parameter(
            torch.cat([*parts, dense.new_zeros(0)]), requires_grad=like.weight.requires_grad
        )
        self.bias = (
            None
            if like.bias is None
            else nn.Parameter(like.bias.detach().clone(), like.bias.requires_grad)
        )
        order = torch.cat([rows for rows, _ in self._pieces])
        self._in_order = bool((order.diff() > 0).all())
        self.register_buffer("_back", order.argsort().to(dense.device), persistent=False)
        for number, (_, columns) in enumerate(self._pieces):
            self.register_buffer(f"_columns{number}", columns.to(dense.device), persistent=False)

    @property
    def index_bytes(self) -> int:
        """What it takes to say which blocks these are: two bytes for each end of a run of rows or
        columns, four a block.
        """
        runs = sum(
            1 + sum(a != b for a, b in pairwise(side))
            for side in (self.blocks.rows, self.blocks.columns)
        )
        return 2 * runs + 4 * len(self.blocks.kept)

    def dense_weight(self) -> Tensor:
        """The weight with zeros where nothing is kept, of the original's shape."""
        return _put(self._pieces, self._values(), self._shape)

    def take(self, dense: Tensor) -> None:
        """Take the kept weights of a dense one of the original's shape."""
        inner = dense.detach().reshape(*self._shape[:2], -1)
        parts = [inner[rows][:, columns].reshape(-1) for rows, columns in self._pieces]
        self.weight.data = torch.cat([*parts, dense.new_zeros(0)]).to(self.weight)
        self._made = None

    def _ready(self) -> Tensor:
        """The dense weight, made anew whenever it may have changed."""
        if torch.is_grad_enabled():
            return self.dense_weight()
        if self._made is None or self._made[0] != self.weight._version:
            self._made = (self.weight._version, self.dense_weight())
        return self._made[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BlockSparse:
        self._made = None  # it would stay behind on the old device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types for it
        return self

    def _values(self) -> list[Tensor]:
        """The kept weights of each product: (rows, columns, …)."""
        return _taken_apart(self._pieces, self.weight, self._shape)

    def _joined(self, parts: list[Tensor], axis: int) -> Tensor:
        joined = torch.cat(parts, axis)
        return joined if self._in_order else joined.index_select(axis, self.get_buffer("_back"))

    def _columns(self, number: int) -> Tensor:
        return self.get_buffer(f"_columns{number}")

    def extra_repr(self) -> str:
        """Shape and what is left of it."""
        return (
            f"{self._shape}, {len(self.blocks.kept)} blocks with {self.weight.numel()} of "
            f"{math.prod(self._shape)} weights"
        )


class BlockLinear(BlockSparse):
    """A Linear of blocks: (…, in) → (…, out)."""

    def __init__(self, like: nn.Linear, blocks: LayerBlocks) -> None:
        super().__init__(like, blocks)
        self.in_features, self.out_features = like.in_features, like.out_features

    def forward(self, x: Tensor) -> Tensor:
        """As Linear does."""
        if self.dense:
            return F.linear(x, self._ready(), self.bias)
        parts = [
            x.index_select(-1, self._columns(number)) @ values.T
            for number, values in enumerate(self._values())
        ]
        out = self._joined(parts, -1)
        return out if self.bias is None else out + self.bias


class BlockConv2d(BlockSparse):
    """A convolution of blocks of channels: (batch, in, height, width) → (batch, out, …)."""

    def __init__(self, like: nn.Conv2d, blocks: LayerBlocks) -> None:
        super().__init__(like, blocks)
        self.in_channels, self.out_channels = like.in_channels, like.out_channels
        self.stride, self.padding, self.dilation = like.stride, like.padding, like.dilation

    def forward(self, x: Tensor) -> Tensor:
        """As Conv2d does."""
        if self.dense:
            return F.conv2d(x, self._ready(), self.bias, self.stride, self.padding, self.dilation)
        products = [(self._columns(number), values) for number, values in enumerate(self._values())]
        parts = [
            self._convolved(x.index_select(1, columns), values)
            for columns, values in products
            if len(columns)
        ]
        empty = sum(
            len(values) for columns, values in products if not len(columns)
        )  # rows without a block come last
        if empty:
            like = (
                parts[0]
                if parts
                else self._convolved(x[:, :1], x.new_zeros(1, 1, *self._shape[2:]))
            )
            parts.append(like.new_zeros(like.shape[0], empty, *like.shape[2:]))
        out = self._joined(parts, 1)
        return out if self.bias is None else out + self.bias.view(1, -1, 1, 1)

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation)


def _pieces(places: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows that keep the same columns, with these: (rows, columns) index pairs; those that keep
    none come last.
    """
    patterns, which = torch.unique(places, dim=0, return_inverse=True)
    first = torch.stack([(which == number).nonzero()[0, 0] for number in range(len(patterns))])
    pieces = [
        ((which == number).nonzero().squeeze(1), patterns[number].nonzero().squeeze(1))
        for number in first.argsort().tolist()
    ]
    return sorted(pieces, key=lambda piece: len(piece[1]) == 0)


def _taken_apart(
    pieces: list[tuple[Tensor, Tensor]], values: Tensor, shape: tuple[int, ...]
) -> list[Tensor]:
    """The values of each product: (rows, columns, …)."""
    shapes = [(len(rows), len(columns), *shape[2:]) for rows, columns in pieces]
    parts = torch.split(values, [math.prod(part) for part in shapes])
    return [part.view(form) for part, form in zip(parts, shapes, strict=True)]


def _put(
    pieces: list[tuple[Tensor, Tensor]], values: list[Tensor], shape: tuple[int, ...]
) -> Tensor:
    whole = values[0].new_zeros(shape)
    for (rows, columns), part in zip(pieces, values, strict=True):
        if len(columns):
            whole = whole.index_put((rows[:, None], columns[None]), part)
    return whole


def can_be_blocks(module: nn.Module) -> bool:
    """Whether a layer has a form of blocks."""
    plain_conv = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear or plain_conv


def as_blocks(module: nn.Module, blocks: LayerBlocks) -> BlockSparse:
    """A layer that holds only these blocks of another's weight, in its mode.

    Raises:
        SurgeryError: the layer is neither a Linear nor a Conv2d without groups.
    """
    if type(module) is nn.Linear:
        layer: BlockSparse = BlockLinear(module, blocks)
    elif isinstance(module, nn.Conv2d) and can_be_blocks(module):
        layer = BlockConv2d(module, blocks)
    else:
        raise SurgeryError(
            f"{type(module).__name__} has no form of blocks; only Linear and Conv2d without "
            "groups have"
        )
    return layer.train(module.training)


def as_dense(module: BlockSparse) -> nn.Linear | nn.Conv2d:
    """The ordinary layer that computes the same."""
    bias = module.bias is not None
    layer: nn.Linear | nn.Conv2d
    if isinstance(module, BlockConv2d):
        layer = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module._shape[2:],  # type: ignore[arg-type]  # two numbers
            module.stride,  # type: ignore[arg-type]  # two numbers
            module.padding,  # type: ignore[arg-type]  # two numbers, or a word
            module.dilation,  # type: ignore[arg-type]  # two numbers
            bias=bias,
        )
    else:
        layer = nn.Linear(module._shape[1], module._shape[0], bias=bias)
    layer.weight.data, layer.weight.requires_grad = (
        module.dense_weight().detach(),
        module.weight.requires_grad,
    )
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach().clone(), module.bias.requires_grad)
    return layer.train(module.training)


def with_blocks(model: nn.Module, layers: Mapping[str, LayerBlocks]) -> nn.Module:
    """A copy in which layers, by name, hold only blocks of their weights."""
    model = duplicate(model)
    for name, blocks in layers.items():
        model.set_submodule(name, as_blocks(model.get_submodule(name), blocks))
    return model


def without_blocks(model: nn.Module) -> tuple[nn.Module, dict[str, LayerBlocks]]:
    """A copy in which all layers are ordinary ones again, and what blocks they had."""
    model = duplicate(model)
    blocks: dict[str, LayerBlocks] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, BlockSparse):
            blocks[name] = module.blocks
            model.set_submodule(name, as_dense(module))
    return model, blocks


def blocks_left(graph: Graph, plan: Plan) -> dict[str, LayerBlocks]:
    """Layer → the blocks of its weight once units have left, of layers that have a form of blocks.

    Others, and those that share their weight, keep an ordinary weight with zeros in it.
    """
    owners = Counter(
        id(tensor) for _, tensor in graph.model.named_parameters(remove_duplicate=False)
    )
    narrowed = blocks_after(graph, plan)
    return {
        name.rpartition(".")[0]: blocks
        for name, blocks in narrowed.items()
        if can_be_blocks(graph.model.get_submodule(name.rpartition(".")[0]))
        and owners[id(graph.state[name])] == 1
        and (blocks.out_axis, blocks.in_axis) == (0, 1)
    }


def blocks_after(graph: Graph, plan: Plan) -> BlockPlan:
    """The blocks of all weights once units have left."""
    indices = graph.kept_indices(plan.kept)
    return BlockPlan(
        {name: narrowed(blocks, indices.get(name, {})) for name, blocks in plan.blocks.items()}
    )


def narrowed(blocks: LayerBlocks, kept: Mapping[int, Tensor]) -> LayerBlocks:
    """The blocks of a weight of which some rows and columns have left.

    Args:
        kept: axis → the indices that stay, int64 (kept,); all of an axis that is not named.
    """
    rows, columns = (
        tuple(side[i] for i in kept[axis].tolist()) if axis in kept else side
        for axis, side in ((blocks.out_axis, blocks.rows), (blocks.in_axis, blocks.columns))
    )
    pairs = tuple((r, c) for r, c in blocks.kept if r in rows and c in columns)
    return LayerBlocks(rows, columns, pairs, blocks.out_axis, blocks.in_axis)


def stored_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, with what it takes to say which blocks they are."""
    tensors: dict[int, Tensor] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    hidden = {
        id(b)
        for m in model.modules()
        if isinstance(m, BlockSparse)
        for b in m.buffers(recurse=False)
    }
    index = sum(module.index_bytes for module in model.modules() if isinstance(module, BlockSparse))
    return index + sum(tensor.nbytes for key, tensor in tensors.items() if key not in hidden)
