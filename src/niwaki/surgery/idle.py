"""Idle units, once blocks of weights have been removed: those that nothing reads (dead units), and
those that have the same value for all inputs (constant units).

Both are found by wiring, not by values: a unit is idle because of weights that are removed for
good, not because some weight happens to be zero. A unit that nothing reads is removed. One that
reads nothing any more is constant: its value is what the biases, normalisations and
non-linearities on its way make of zero. That value is taken from a run of the network, and goes
into the bias of what reads the unit, as the shift of a mixing.

A convolution that pads its input with zeros does not see that value at the border, so no bias can
replace it: there a unit is removed only where its value is zero (a ReLU that stays closed); else it
stays, and a remark says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from niwaki.core.blocks import BlockPlan
from niwaki.core.errors import TraceError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group, Role, Slice
from niwaki.graph.offsets import offsets
from niwaki.methods.moments.units import readers
from niwaki.running import Op, described, made_up, run, tensors_in

STEADY = 1e-5  # of a value: sums of the same numbers in another order differ by less
SAMPLES = 4  # of noise that the network is run on, beside the example inputs


@dataclass(frozen=True)
class Idle:
    """What can leave.

    Attributes:
        plan: the units that stay; at least one of every group.
        mixings: group → the constants of its units that leave, by the weight that reads them.
        unread, constant: how many units leave because nothing reads them, or as they are always the
            same.
        remarks: on units that are always the same, and have to stay; on groups of idle units alone.
    """

    plan: Plan
    mixings: Mapping[str, Mixing] = field(default_factory=dict)
    unread: int = 0
    constant: int = 0
    remarks: tuple[str, ...] = ()


def idle_units(graph: Graph, blocks: BlockPlan) -> Idle:
    """The units of a masked network that can leave it without changing what it computes in
    evaluation mode.

    Args:
        graph: of the masked network.
        blocks: what is gone from its weights.
    """
    groups = [
        group for group in graph.groups if group.fold_obstacle is None and group.normalised is None
    ]
    unread = _Wiring(graph, blocks).unread(groups)
    same = _Wiring(graph, blocks).fed_by_nothing(groups)
    whole = _Wiring(graph, blocks)
    values = _values(
        graph, [name for name, units in same.items() if bool((units & ~unread[name]).any())]
    )
    kept, mixings, remarks, counts = {}, {}, [], [0, 0]
    for group in groups:
        going = unread[group.name].clone()
        shifts: dict[str, Tensor] = {}
        if group.name in values:
            heard = {weight: whole.read_by(group, weight) for weight in values[group.name]}
            leaving, shifts, stays = _Constants(
                graph, group, same[group.name] & ~going, values[group.name], heard
            ).leaving()
            going |= leaving
            remarks += stays
        if not bool(going.any()):
            continue
        if bool(going.all()):
            going[0] = False  # no layer is left without a channel
            remarks.append(
                f"{group.name}: none of its channels depends on the input any more, or none is "
                "read, so nothing of the input gets through it; cut less, or with fed=true, which "
                "keeps a block for every group"
            )
        kept[group.name] = Kept(group.width, tuple((~going).nonzero().squeeze(1).tolist()))
        counts[0] += int((going & unread[group.name]).sum())
        counts[1] += int((going & ~unread[group.name]).sum())
        mixing = _with_shifts(group, kept[group.name], shifts, going)
        if mixing is not None:
            mixings[group.name] = mixing
    return Idle(Plan(kept), mixings, counts[0], counts[1], tuple(remarks))


def _with_shifts(
    group: Group, kept: Kept, shifts: Mapping[str, Tensor], leaving: Tensor
) -> Mixing | None:
    """Plain selection, with the constants of what leaves; None where these are all zero."""
    left = {weight: torch.where(leaving, shift, 0.0) for weight, shift in shifts.items()}
    if not any(bool(shift.any()) for shift in left.values()):
        return None
    matrix = Mixing.selecting(group.width, kept.units).matrix
    return Mixing(
        matrix,
        None,
        {weight: Mixing(matrix, shift) for weight, shift in left.items() if bool(shift.any())},
    )


class _Wiring:
    """Which weights are left, entry by entry; it loses those of units that turn out to be idle,
    until no more do.
    """

    def __init__(self, graph: Graph, blocks: BlockPlan) -> None:
        self._left = {
            name: layer.mask(graph.state[name]).cpu().clone() for name, layer in blocks.items()
        }
        self._state = graph.state

    def unread(self, groups: Iterable[Group]) -> dict[str, Tensor]:
        """Group → bool (width,): the units that no weight which matters reads."""
        return self._until_none(groups, Role.CONSUMER, Role.PRODUCER)

    def fed_by_nothing(self, groups: Iterable[Group]) -> dict[str, Tensor]:
        """Group → bool (width,): the units all of whose weights are gone, or read nothing but such
        units.
        """
        return self._until_none(groups, Role.PRODUCER, Role.CONSUMER)

    def read_by(self, group: Group, weight: str) -> Tensor:
        """The units of which a weight has an entry left: bool (width,)."""
        return (
            ~self._idle(group, Role.CONSUMER, weight)
            if weight in self._left
            else torch.ones(group.width, dtype=torch.bool)
        )

    def _until_none(
        self, groups: Iterable[Group], looked_at: Role, other: Role
    ) -> dict[str, Tensor]:
        groups = list(groups)
        idle_units = {group.name: torch.zeros(group.width, dtype=torch.bool) for group in groups}
        changed = True
        while changed:
            changed = False
            for group in groups:
                idle = self._idle(group, looked_at)
                if bool((idle & ~idle_units[group.name]).any()):
                    idle_units[group.name] |= idle
                    self._take(group, other, idle)
                    changed = True
        return idle_units

    def _idle(self, group: Group, role: Role, only: str | None = None) -> Tensor:
        """The units with no entry left in the weights in which they have this role; none, where it
        has no such weight.
        """
        pieces = [piece for piece in self._weights(group, role) if only in (None, piece.tensor)]
        if not pieces or any(piece.tensor not in self._left for piece in pieces):
            return torch.zeros(group.width, dtype=torch.bool)
        used = torch.zeros(group.width, dtype=torch.bool)
        for piece in pieces:
            entries = self._left[piece.tensor].movedim(piece.axis, 0).flatten(1).any(1)
            inside = piece.units >= 0
            used.index_put_((piece.units[inside],), entries[inside], accumulate=True)
        return ~used

    def _take(self, group: Group, role: Role, units: Tensor) -> None:
        for piece in self._weights(group, role):
            if piece.tensor not in self._left:
                self._left[piece.tensor] = torch.ones(
                    self._state[piece.tensor].shape, dtype=torch.bool
                )
            inside = piece.units >= 0
            indices = inside & units[piece.units.clamp(min=0)]
            self._left[piece.tensor].movedim(piece.axis, 0)[indices] = False

    def _weights(self, group: Group, role: Role) -> list[Slice]:
        """Not biases: these make no unit differ from input to input."""
        return [piece for piece in group.of_role(role) if self._state[piece.tensor].ndim > 1]


Range = tuple[Tensor, Tensor]  # the lowest and the highest value of every unit


def _values(graph: Graph, names: Iterable[str]) -> dict[str, dict[str, Range]]:
    """Group → weight → the range of every unit where that weight reads it, on the example inputs
    and on noise.

    Empty where the network's path hangs on values, or it cannot be run on noise.
    """
    where = readers(graph, names)
    ranges: dict[str, dict[str, Range]] = {}
    if not where or graph.inference.tape.by_value:
        return ranges

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for reader in where.get(position, ()):
            rows = reader.rows(args[reader.read.slot]).double().cpu()
            low, high = rows.amin(0), rows.amax(0)
            seen = ranges.setdefault(reader.group, {}).get(reader.weight)
            if seen is not None:
                low, high = torch.minimum(low, seen[0]), torch.maximum(high, seen[1])
            ranges[reader.group][reader.weight] = (low, high)
        return op.func(*args, **kwargs)

    device = next((tensor.device for tensor in tensors_in(graph.inputs)), torch.device("cpu"))
    try:
        noise = made_up(described(graph.inputs), batch=SAMPLES, seed=1)
        for inputs in (
            graph.inputs,
            tree_map_only(Tensor, lambda tensor: tensor.to(device), noise),
        ):
            run(graph.model, graph.inference.tape, inputs, step)
    except TraceError:
        return {}
    return ranges


@dataclass(frozen=True, eq=False)
class _Constants:
    """Units of one group that are fed by nothing, with what was seen of them."""

    graph: Graph
    group: Group
    units: Tensor
    seen: Mapping[str, Range]
    heard: Mapping[str, Tensor]  # weight → of which units it has an entry left

    def leaving(self) -> tuple[Tensor, dict[str, Tensor], list[str]]:
        """Which can leave, their constants by reading weight, and what is to be said of those that
        have to stay.
        """
        steady = self.units.clone()
        for low, high in self.seen.values():
            steady &= high - low <= STEADY * high.abs()  # never true of NaN
        shifts = {
            weight: torch.where(steady & self.heard[weight], high, 0.0)
            for weight, (_, high) in self.seen.items()
        }
        telling = torch.stack([shift != 0 for shift in shifts.values()]).any(0)
        said = self._staying(
            self.units & ~steady,
            "what they put out differs from place to place, as at a border of zeros",
        )
        reason = self._why_not(shifts) if bool(telling.any()) else None
        if reason is None:
            return steady, shifts, said
        return steady & ~telling, {}, said + self._staying(telling, reason)

    def _staying(self, units: Tensor, reason: str) -> list[str]:
        count = int(units.sum())
        which = (
            "1 unit that reads nothing stays"
            if count == 1
            else f"{count} units that read nothing stay"
        )
        return [f"{self.group.name}: {which}: {reason}"] if count else []

    def _why_not(self, shifts: Mapping[str, Tensor]) -> str | None:
        places, obstacle = offsets(self.graph, self.group.name)
        if obstacle is not None:
            return obstacle
        padded = [
            place.layer for place in places if place.padded and bool(shifts[place.weight].any())
        ]
        return (
            f"{padded[0]} pads with zeros, and does not see a constant at the border"
            if padded
            else None
        )
