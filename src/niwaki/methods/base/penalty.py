"""What a penalty is: settings, and the groups of a graph that it is laid over. Training sees a
callable and no more.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.core.registry import Registry
from niwaki.graph import Graph, Group, Slice
from niwaki.running import tensor_at


@dataclass(frozen=True, eq=False)
class Term:
    """One tensor slice of a group, and what of it is summed up.

    Attributes:
        measure: the slice's entries by unit (width, n) → what is summed.
    """

    piece: Slice
    measure: Callable[[Tensor], Tensor]

    def __call__(self, model: nn.Module) -> Tensor:
        """The sum, with gradients."""
        moved = tensor_at(model, self.piece.tensor).movedim(self.piece.axis, 0)
        if self.order is not None:
            moved = moved[self.order.to(moved.device)]
        if moved.dtype in (torch.float16, torch.bfloat16):
            moved = moved.float()  # sums of many small numbers
        return self.measure(moved.reshape(self.width, -1)).sum()

    @cached_property
    def width(self) -> int:
        """How many units."""
        return int(self.piece.units.max()) + 1

    @cached_property
    def order(self) -> Tensor | None:
        """Indices sorted by unit; None where they are so already."""
        order = torch.argsort(self.piece.units, stable=True)
        order = order[self.piece.units[order] >= 0]
        return None if torch.equal(order, torch.arange(len(self.piece.units))) else order


@dataclass(frozen=True)
class Penalty(ABC):
    """A method that makes units small while training.

    Attributes:
        reg: the weight of the sum in the loss.
    """

    reg: float = 1e-4

    def __post_init__(self) -> None:
        if not (isinstance(self.reg, (int, float)) and 0 <= self.reg < math.inf):
            raise SettingError(
                f"the penalty's weight reg must be a number of at least 0; got {self.reg}"
            )

    @abstractmethod
    def terms(self, group: Group) -> list[Term]:
        """What is summed up for a group; empty where there is nothing that this penalty works
        on.
        """

    @abstractmethod
    def refusal(self, groups: Sequence[Group]) -> str:
        """Why there is nothing to work on, and which penalty would serve."""

    def over(
        self, graph: Graph, only: str | Sequence[str] = (), skip: str | Sequence[str] = ()
    ) -> PenaltyOver:
        """The penalty over the groups of a graph; glob patterns on the names of their layers let
        groups in or keep them out.

        Raises:
            SettingError: a pattern matches no group, or no group has what the penalty works on.
        """
        only, skip = (
            (words,) if isinstance(words, str) else tuple(words) for words in (only, skip)
        )
        for pattern in (*only, *skip):
            if not any(_matches(group, (pattern,)) for group in graph.groups):
                known = ", ".join(group.name for group in graph.groups[:8])
                raise SettingError(
                    f"no group has a layer named like {pattern!r}; groups are: {known}"
                )
        groups = [
            group
            for group in graph.groups
            if (not only or _matches(group, only)) and not (skip and _matches(group, skip))
        ]
        terms = [term for group in groups for term in self.terms(group)]
        if not terms:
            raise SettingError(self.refusal(groups))
        return PenaltyOver(self, tuple(terms))


@dataclass(frozen=True)
class PenaltyOver:
    """A penalty over certain groups: called with the traced model or a copy of it, a scalar that is
    part of the loss.
    """

    penalty: Penalty
    terms: tuple[Term, ...]

    def __call__(self, model: nn.Module) -> Tensor:
        """reg times the sum over all units."""
        return self.penalty.reg * torch.stack([term(model) for term in self.terms]).sum()

    def __str__(self) -> str:
        return f"{self.penalty} over {len({term.piece.tensor for term in self.terms})} tensors"


def scale_refusal(groups: Sequence[Group], what: str) -> str:
    """The sentence of penalties on scales that find none."""
    names = ", ".join(group.name for group in groups[:5]) or "none"
    return (
        f"none of the groups ({names}{', …' * (len(groups) > 5)}) has {what}; the penalty "
        "'group-lasso' works on weights, and the criteria 'l1' and 'l2' prune by them"
    )


def _matches(group: Group, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(layer, pattern) for pattern in patterns for layer in (*group.layers, group.name)
    )


PENALTIES: Registry[Penalty] = Registry("penalty")
