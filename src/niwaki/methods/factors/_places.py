"""Where a factor on a unit or a branch can be put: tensors that, multiplied by it, multiply what it
stands for.

A unit's factor goes into the columns of all weights that read it. For factors of at least 0 that is
the same function as before a ReLU, and it is there for every non-linearity. A branch's factor goes
into what the branch ends in: scale and shift of a normalisation, or weight and bias of a product.

Example: for y = W·relu(x), a factor f on unit 3 multiplies the column W[:, 3]; for x + bn(g(x)), a
factor on the branch multiplies γ and β, since f·(γ·z + β) = (f·γ)·z + f·β.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch

from niwaki.core.errors import SettingError
from niwaki.graph import Branch, Graph, Group, Role, Slice, branches
from niwaki.graph.inference import Kind
from niwaki.running import Op

Over = Literal["units", "branches"]
PASSING = (Kind.VIEW, Kind.LINEAR, Kind.HOMOGENEOUS)


@dataclass(frozen=True)
class Place:
    """Where the factors of a group, or the one of a branch, go.

    Attributes:
        name: of the group or branch.
        width: how many factors.
        slices: the tensors that are multiplied, with the factor of every index of an axis.
    """

    name: str
    width: int
    slices: tuple[Slice, ...]


def places(graph: Graph, over: Over) -> tuple[tuple[Place, ...], dict[str, str]]:
    """All places for factors, and why other groups or branches have none."""
    fitting: list[Place] = []
    refused: dict[str, str] = {}
    shared = _shared(graph)
    for item in graph.groups if over == "units" else branches(graph):
        try:
            place = _unit(item) if isinstance(item, Group) else _branch(graph, item)
            _refuse(graph, place, shared)
            fitting.append(place)
        except _NoPlaceError as error:
            refused[item.name] = str(error)
    return tuple(fitting), refused


def chosen(graph: Graph, over: Over) -> tuple[Place, ...]:
    """The places.

    Raises:
        SettingError: there is none.
    """
    fitting, refused = places(graph, over)
    if not fitting:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
        raise SettingError(f"no factor can be put on {over}: {why or 'the network has none'}")
    return fitting


class _NoPlaceError(Exception):
    """Why a factor cannot be put somewhere."""


def _unit(group: Group) -> Place:
    pieces = group.of_role(Role.CONSUMER)
    if group.fold_obstacle is not None or not pieces:
        raise _NoPlaceError(group.fold_obstacle or "no weight reads it")
    if group.normalised is not None:
        raise _NoPlaceError(f"{group.normalised} takes its statistics over the units")
    return Place(group.name, group.width, pieces)


def _branch(graph: Graph, branch: Branch) -> Place:
    """Back from the sum, through what passes a factor on, to the tensors that end the branch."""
    inference, tape = graph.inference, graph.inference.tape
    end = tape.ops[branch.position].args[1 - branch.stream]
    tensors: list[str] = []
    for position in range(branch.position - 1, -1, -1):
        op = tape.ops[position]
        if end not in op.outputs:
            continue
        kind = inference.kinds[position]
        if kind is Kind.PRODUCT or kind is Kind.NORM or _is_scaled(graph, op):
            tensors += _learned(graph, op)
            return Place(branch.name, 1, tuple(_whole(graph, name, branch) for name in tensors))
        inside = [ref for ref in op.tensors if inference.is_activation(ref)]
        if kind is Kind.BIAS and len(inside) == 1:
            tensors += _learned(graph, op)
        elif kind not in PASSING or len(inside) != 1:
            break
        end = inside[0]
    raise _NoPlaceError("it does not end in a weight or a normalisation with a scale")


def _is_scaled(graph: Graph, op: Op) -> bool:
    known = graph.inference.tape.parameters
    return any(known.get(ref) in graph.inference.scales for ref in op.tensors)


def _learned(graph: Graph, op: Op) -> list[str]:
    """The parameters that an operator's result is linear in; its stored statistics are none."""
    learned = {name for name, _ in graph.model.named_parameters()}
    names: list[str] = []
    for ref in op.tensors:
        origin = graph.inference.origins.get(ref)
        if origin is not None and not (origin.pure and len(origin.names) == 1):
            raise _NoPlaceError(f"it ends in a computed weight, of {' and '.join(origin.names)}")
        names += [] if origin is None else [name for name in origin.names if name in learned]
    if not names:
        raise _NoPlaceError("it ends in a normalisation without a scale")
    return names


def _whole(graph: Graph, name: str, branch: Branch) -> Slice:
    """A whole tensor that one factor multiplies."""
    if name not in branch.tensors:
        raise _NoPlaceError(f"{name} is used outside of it too")
    tensor = graph.state[name]
    size = tensor.shape[0] if tensor.ndim else 1
    return Slice(name, 0, Role.PRODUCER, torch.zeros(size, dtype=torch.int64, device="cpu"))


def _shared(graph: Graph) -> set[str]:
    """First names of parameters that several layers hold."""
    first = {id(tensor): name for name, tensor in graph.model.named_parameters()}
    counts = Counter(
        id(tensor) for _, tensor in graph.model.named_parameters(remove_duplicate=False)
    )
    return {first[key] for key, count in counts.items() if count > 1}


def _refuse(graph: Graph, place: Place, shared: set[str]) -> None:
    for piece in place.slices:
        if piece.tensor in shared:
            raise _NoPlaceError(f"{piece.tensor} belongs to several layers")
        if "parametrizations." in piece.tensor:
            raise _NoPlaceError(f"{piece.tensor} is a part of a computed weight")
        owner = graph.model.get_submodule(piece.tensor.rpartition(".")[0])
        if any(_holds_tensors(value) for value in vars(owner).values()):
            raise _NoPlaceError(f"the layer of {piece.tensor} keeps a list of its weights")


def _holds_tensors(value: object) -> bool:
    """Whether a value is a list of tensors, which would not follow what becomes of a weight (of an
    LSTM, say).
    """
    return isinstance(value, list) and any(isinstance(item, torch.Tensor) for item in value)
