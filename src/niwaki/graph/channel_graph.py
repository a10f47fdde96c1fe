"""The channels of a model: all groups, what is frozen, and what a plan leaves of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from niwaki.core.errors import UnknownNameError
from niwaki.core.records import Unread
from niwaki.graph.counting import SumOfProducts
from niwaki.graph.group import Frozen, Group
from niwaki.graph.inference import Inference, Read
from niwaki.graph.offset import Offset
from niwaki.graph.paths import Probes
from niwaki.graph.terms import Var, crossed, keep_mask, kept_size, leaves
from niwaki.graph.ties import Tie, find_ties
from niwaki.graph.unread import unread
from niwaki.running import Inputs, named_state
from niwaki.running.computed import Computed


@dataclass(frozen=True, eq=False)
class Graph:
    """The channels of a model: what can go together, and what must stay.

    Attributes:
        model: the model as given, never written to; a copy of it where weights are `computed`.
        inputs: the example inputs that it was run on.
        groups: by tape order of their first producer.
        unknown: operators that the table does not know, with their number; what they touch is
            frozen.
        probes: other inputs that the model takes, and what it does there.
        given: the model as given; None where it is `model`.
        computed: weights that the given model makes of other tensors (weight_norm, masks), and that
            `model` has as ordinary parameters.
    """

    model: nn.Module
    inputs: Inputs
    inference: Inference
    groups: tuple[Group, ...]
    variables: Mapping[str, Var]
    frozen: tuple[Frozen, ...]
    probes: Probes = field(default_factory=Probes)
    given: nn.Module | None = None
    computed: tuple[Computed, ...] = ()

    @property
    def original(self) -> nn.Module:
        """The user's own model."""
        return self.model if self.given is None else self.given

    @property
    def unknown(self) -> Mapping[str, int]:
        return self.inference.unknown

    @cached_property
    def unread(self) -> Unread:
        """The parameters that the run never touched."""
        return unread(self.model, self.inference.tape)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The model's parameters and buffers by name."""
        return named_state(self.model)

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """Groups whose count the code computes from another's."""
        return find_ties(self.model, self.inference, self.variables)

    @cached_property
    def _by_name(self) -> dict[str, Group]:
        return {group.name: group for group in reversed(self.groups)}

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> Group:
        group = self._by_name.get(name)
        if group is not None:
            return group
        raise UnknownNameError("group", name, (group.name for group in self.groups))

    @cached_property
    def reads_of(self) -> Mapping[Var, tuple[Read, ...]]:
        """Variable → where operators sum over it, in the order of the tape; not where they take
        statistics.
        """
        by_variable: dict[Var, list[Read]] = {}
        for read in self.inference.reads:
            if not read.statistics:
                for var in dict.fromkeys(leaves(read.term)):
                    by_variable.setdefault(var, []).append(read)
        return {var: tuple(reads) for var, reads in by_variable.items()}

    @cached_property
    def offsets(self) -> dict[str, tuple[tuple[Offset, ...], str | None]]:
        """Group → places for its consumers' constants, or why one has none; `offsets` fills it."""
        return {}

    @cached_property
    def around(self) -> Mapping[str, set[str]]:
        """Group → groups whose units are rows of an axis in which its own are the columns: head
        dimensions → heads.
        """
        names = {var: name for name, var in self.variables.items()}
        pairs: dict[str, set[str]] = {name: set() for name in self.variables}
        for terms in self.inference.parameters.values():
            for term in terms:
                for outer, inner in crossed(term):
                    if outer in names and inner in names:
                        pairs[names[inner]].add(names[outer])
        return pairs

    @cached_property
    def crossing(self) -> Mapping[str, set[str]]:
        """Group → groups that it shares an axis with as rows and columns (heads and head
        dimensions), either way.

        Half of both gone is three quarters of that axis gone.
        """
        pairs = {name: set(outer) for name, outer in self.around.items()}
        for name, outer in self.around.items():
            for other in outer:
                pairs[other].add(name)
        return pairs

    def layer_holds(self, layer: str, tensor: str) -> bool:
        """Whether a layer, or one inside it, is the owner of a tensor; the model itself owns only
        its bare parameters.
        """
        return tensor.startswith(f"{layer}.") if layer else "." not in tensor

    def sized_by(self, layer: str, *, inside: bool) -> set[str]:
        """Groups on whose size the code of a layer (and of the layers inside it) depends through a
        number.
        """
        at = {
            var
            for number in self.inference.numbers
            if number.layer == layer
            or (inside and (not layer or number.layer.startswith(f"{layer}.")))
            for var in leaves(number.term)
        }
        return {name for name, var in self.variables.items() if var in at}

    def masks(self, kept: Mapping[str, Iterable[int]]) -> dict[Var, Tensor]:
        """Kept units of some groups as a bool mask a variable."""
        masks = {}
        for name, units in kept.items():
            masks[self.variables[name]] = mask = torch.zeros(
                self[name].width, dtype=torch.bool, device="cpu"
            )
            mask[torch.as_tensor(list(units), dtype=torch.int64, device="cpu")] = True
        return masks

    def kept_indices(self, kept: Mapping[str, Iterable[int]]) -> dict[str, dict[int, Tensor]]:
        """Which indices stay, of every axis of every tensor that gets smaller: name → axis → int64
        (kept,).
        """
        masks = self.masks(kept)
        result: dict[str, dict[int, Tensor]] = {}
        for name, terms in self.inference.parameters.items():
            for axis, term in enumerate(terms):
                mask = keep_mask(term, masks)
                if not bool(mask.all()):
                    result.setdefault(name, {})[axis] = mask.nonzero().squeeze(1)
        return result

    def count_params(
        self, kept: Mapping[str, int] | None = None, among: Collection[str] | None = None
    ) -> int:
        """Parameters of the model once only so many units of these groups are left.

        Args:
            among: names of the parameters that count; all without it.
        """
        sizes = self._sizes(kept)
        if among is None and not self.computed:
            return self._params(sizes)
        terms = self.inference.parameters
        return sum(
            math.prod(kept_size(term, sizes) for term in terms[name])
            if name in terms
            else parameter.numel()
            for name, parameter in self.model.named_parameters()
            if among is None or name in among
        ) + sum(self._lengths(sizes, among).values())

    def count_macs(
        self, kept: Mapping[str, int] | None = None, at: Collection[int] | None = None
    ) -> int:
        """Multiply-adds of one run on the example inputs once only so many units of these groups
        are left.

        Args:
            at: the operators that count, by their place on the tape; all without it.
        """
        sizes = self._sizes(kept)
        if at is None:
            return self._macs(sizes)
        return sum(
            math.prod(kept_size(term, sizes) for term in work.terms)
            for work in self.inference.work
            if work.position in at
        )

    @cached_property
    def _macs(self) -> SumOfProducts:
        every = (work.terms for work in self.inference.work)
        return SumOfProducts(every, set(self.variables.values()))

    @cached_property
    def _params(self) -> SumOfProducts:
        terms = self.inference.parameters
        sizes = {name: parameter.numel() for name, parameter in self.model.named_parameters()}
        rest = sum(size for name, size in sizes.items() if name not in terms)
        cut = (terms[name] for name in sizes if name in terms)
        return SumOfProducts(cut, set(self.variables.values()), rest)

    def count_bytes(
        self, kept: Mapping[str, int] | None = None, among: Collection[str] | None = None
    ) -> int:
        """Bytes of the model's parameters and saved buffers once only so many units of these groups
        are left.

        Args:
            among: names of the tensors that count; all without it.
        """
        sizes, terms, saved = (
            self._sizes(kept),
            self.inference.parameters,
            self.model.state_dict().keys(),
        )
        return sum(
            tensor.element_size()
            * (
                math.prod(kept_size(term, sizes) for term in terms[name])
                if name in terms
                else tensor.numel()
            )
            for name, tensor in self.state.items()
            if name in saved and (among is None or name in among)
        ) + sum(
            count * self.state[name].element_size()
            for name, count in self._lengths(sizes, among).items()
        )

    def _lengths(self, sizes: dict[Var, int], among: Collection[str] | None) -> dict[str, int]:
        """Weight under weight_norm → how many lengths it has beside its directions."""
        counts = {}
        for item in self.computed:
            if "weight_norm" in item.kind and (among is None or item.name in among):
                axis, terms = item.how.dim, self.inference.parameters.get(item.name)
                one = axis in (None, -1) or terms is None
                counts[item.name] = 1 if one or terms is None else kept_size(terms[axis], sizes)
        return counts

    def _sizes(self, kept: Mapping[str, int] | None) -> dict[Var, int]:
        return {self.variables[name]: count for name, count in (kept or {}).items()}

    def shapes_after(self, kept: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter and buffer once only these units are left."""
        indices = self.kept_indices(kept)
        shapes = {}
        for name, tensor in self.state.items():
            axes = indices.get(name, {})
            shapes[name] = tuple(
                len(axes[i]) if i in axes else size for i, size in enumerate(tensor.shape)
            )
        return shapes

    def __str__(self) -> str:
        from niwaki.graph._outline import outline  # it is made of these types

        return str(outline(self))
