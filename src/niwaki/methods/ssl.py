"""SSL, structured sparsity learning: Euclidean norms of whole groups of weights.

E(W) = E_D(W) + λ·Σ ‖w_g‖₂, over groups of four kinds: filters W[n,:,:,:], channels W[:,c,:,:],
filter shapes W[:,c,k,l], and depth, the whole of a residual branch. Source: Wen, Wu, Wang, Chen,
Li, Learning Structured Sparsity in Deep Neural Networks, NeurIPS 2016, arXiv 1608.03665, section 3.

Subgradients do not reach zero; the proximal step w_g ← max(0, 1 - lr·λ/‖w_g‖)·w_g does, after a
step that knows nothing of the penalty. `group-lasso` is the filter-wise form over biases too.

Example: a linear weight with the rows (3, 4) and (0, 1) has filter groups of the norms 5 and 1, in
sum 6, and channel groups of the norms 3 and √17. A proximal step over filters with lr·λ = 1 leaves
the rows (2.4, 3.2) and (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.graph import Graph, Group, Role, Slice, branches
from niwaki.methods.base.penalty import PENALTIES, Penalty, PenaltyOver, Term
from niwaki.methods.factors.proximal import LearningRate, block_soft_threshold
from niwaki.running import tensor_at

Kind = Literal["filters", "channels", "shapes", "depth"]


@dataclass(frozen=True, eq=False)
class Blocks(Term):
    """One tensor's groups of weights, or the one group of several tensors.

    Attributes:
        by_place: a group is one index and one place of a kernel, and not all that a unit has.
        more: other tensors of the same single group.
    """

    by_place: bool = False
    more: tuple[str, ...] = ()
    tables: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, model: nn.Module) -> Tensor:
        """Σ ‖w_g‖, with gradients."""
        norms: Tensor = self.measure(self.rows(model))
        return norms.sum()

    def rows(self, model: nn.Module) -> Tensor:
        """The groups' weights: (groups, entries)."""
        parts = [tensor_at(model, name).flatten()[self._table(model, name)] for name in self._names]
        return torch.cat(parts, 1)

    @torch.no_grad()
    def shrink(self, model: nn.Module, amount: float) -> None:
        """The proximal map of amount·Σ ‖w_g‖, in place."""
        tables = [self._table(model, name) for name in self._names]
        smaller = block_soft_threshold(self.rows(model), amount)
        pieces = torch.split(smaller, [table.shape[1] for table in tables], dim=1)
        for name, table, piece in zip(self._names, tables, pieces, strict=True):
            parameter = tensor_at(model, name)
            if not isinstance(parameter, nn.Parameter):
                raise SettingError(
                    f"{name} is computed from other parameters (weight_norm), so that a proximal "
                    "step cannot write it; train without that, or with the penalty alone"
                )
            flat = parameter.data.flatten()
            flat[table] = piece
            parameter.copy_(flat.view(parameter.shape))

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.piece.tensor, *self.more)

    def _table(self, model: nn.Module, name: str) -> Tensor:
        """Which entries of a flattened tensor a group has: (groups, entries)."""
        parameter = tensor_at(model, name)
        if name not in self.tables:
            entries = torch.arange(parameter.numel(), device="cpu").view(parameter.shape)
            self.tables[name] = entries.view(1, -1) if self.more else self._grouped(entries)
        self.tables[name] = self.tables[name].to(parameter.device)
        return self.tables[name]

    def _grouped(self, entries: Tensor) -> Tensor:
        moved = entries.movedim(self.piece.axis, 0)
        moved = moved if self.order is None else moved[self.order.to(moved.device)]
        if not self.by_place or moved.ndim < 2:
            return moved.reshape(self.width, -1)
        return moved.movedim(1, -1).reshape(-1, moved.shape[1])


@PENALTIES.register("ssl")
@dataclass(frozen=True)
class SSL(Penalty):
    """reg · Σ ‖w_g‖₂ over groups of one kind; several kinds are several penalties, added up.

    Attributes:
        kind: "filters" (the weights that write a unit), "channels" (those that read it), "shapes"
            (those that read it at one place of a kernel), or "depth" (all of a residual branch).
    """

    kind: Kind = "filters"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of groups", self.kind, get_args(Kind))

    def terms(self, group: Group) -> list[Term]:
        """The tensors of a channel group that hold groups of this kind; biases are not in them."""
        if self.kind == "depth":
            return []
        written = [piece for writer in group.writers for piece in writer.weights]
        written = written or list(group.of_role(Role.PRODUCER))
        pieces = written if self.kind == "filters" else group.of_role(Role.CONSUMER)
        return [Blocks(piece, _norms, self.kind == "shapes") for piece in pieces]

    def over(
        self, graph: Graph, only: str | Sequence[str] = (), skip: str | Sequence[str] = ()
    ) -> BlocksOver:
        """The penalty over a graph: over its channel groups that the patterns let in, or over all
        residual branches.

        Raises:
            SettingError: a pattern matches no group, or there is nothing of this kind.
        """
        if self.kind != "depth":
            return BlocksOver(self, super().over(graph, only, skip).terms)
        blocks = [_whole(graph, branch.tensors) for branch in branches(graph)]
        terms = tuple(block for block in blocks if block is not None)
        if not terms:
            raise SettingError(
                "ssl:kind=depth works on residual branches, and the network has none; other kinds "
                "work on groups of channels"
            )
        return BlocksOver(self, terms)

    def refusal(self, groups: Sequence[Group]) -> str:
        """Why there is nothing to work on."""
        return f"there is no group of channels with weights that 'ssl:kind={self.kind}' works on"


@dataclass(frozen=True)
class BlocksOver(PenaltyOver):
    """The penalty as a part of the loss; or, without it, its proximal step."""

    def proximal(self, lr: LearningRate) -> ProximalBlocks:
        """What makes groups exactly zero, as an `after_step` of `niwaki.training.fit`.

        Args:
            lr: that of the training.
        """
        return ProximalBlocks(self, lr)


@dataclass(eq=False)
class ProximalBlocks:
    """w_g ← max(0, 1 - lr·reg/‖w_g‖)·w_g, after every step."""

    penalty: BlocksOver
    lr: LearningRate
    steps: int = 0

    def __call__(self, model: nn.Module) -> None:
        """One step, in place."""
        rate = self.lr(self.steps) if callable(self.lr) else self.lr
        self.steps += 1
        for term in self.penalty.terms:
            if isinstance(term, Blocks):
                term.shrink(model, rate * self.penalty.penalty.reg)


def _whole(graph: Graph, names: Sequence[str]) -> Blocks | None:
    """All weights of a branch as one group."""
    learned = dict(graph.model.named_parameters())
    weights = [name for name in names if name in learned and learned[name].ndim > 1]
    if not weights:
        return None
    units = torch.zeros(len(learned[weights[0]]), dtype=torch.int64, device="cpu")
    first = Blocks(Slice(weights[0], 0, Role.PRODUCER, units), _norms)
    return replace(first, more=tuple(weights[1:]))


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
