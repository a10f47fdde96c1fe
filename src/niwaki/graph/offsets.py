"""Where a constant that is added to what a consumer puts out can be kept.

A mixing with a shift adds W · shift to the output of every consumer. That constant goes into the
consumer's bias; where it has none, into the stored mean of the normalisation that follows at once;
else into a new bias of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Role
from niwaki.graph.inference import Read
from niwaki.graph.offset import Offset
from niwaki.graph.operators import WEIGHTED, is_sum, over_image
from niwaki.running import Op, Ref
from niwaki.running.layers import can_take_bias


def offsets(graph: Graph, name: str) -> tuple[tuple[Offset, ...], str | None]:
    """The places for the constants of a group's consumers, or why one of them has none."""
    if name not in graph.offsets:  # every step of a pruning asks
        graph.offsets[name] = _offsets(graph, name)
    return graph.offsets[name]


def _offsets(graph: Graph, name: str) -> tuple[tuple[Offset, ...], str | None]:
    places: dict[tuple[str, int, str], Offset] = {}
    reads = list(reads_of(graph, name))
    try:
        for read in reads:
            place = _place(graph, read)
            key = place.weight, place.axis, place.tensor
            before = places.get(key)
            padded = _pads(graph, read) or (before is not None and before.padded)
            places[key] = replace(place, padded=padded)
        positions: dict[str | None, set[int]] = {}
        for read in reads:
            positions.setdefault(weight_of(graph, read), set()).add(read.position)
        for place in places.values():
            _refuse_shared(graph, place, positions[place.weight])
        _refuse_elsewhere(graph, name)
    except NoPlace as error:
        return (), str(error)
    return tuple(places.values()), None


def _refuse_elsewhere(graph: Graph, name: str) -> None:
    """Raise where a consumer runs only on another path than the example's: no place is known."""
    known = graph.inference.tape.named
    for piece in graph[name].of_role(Role.CONSUMER):
        if piece.tensor not in known:
            raise NoPlace(f"{piece.tensor} reads it on another path alone")


def reads_of(graph: Graph, name: str) -> Iterator[Read]:
    """Where the units of a group are summed over, in the order of the tape."""
    return iter(graph.reads_of.get(graph.variables[name], ()))


def weight_of(graph: Graph, read: Read) -> str | None:
    """The name of the weight against which a read sums, where it is one parameter."""
    if read.weight is None or not graph.inference.origins[read.weight].pure:
        return None
    return graph.inference.origins[read.weight].names[0]


class NoPlace(Exception):  # noqa: N818  # not an error: caught in this file
    """There is no place for a consumer's constant; the message says where."""


def _place(graph: Graph, read: Read) -> Offset:
    tape = graph.inference.tape
    op = tape.ops[read.position]
    where = f"{op.name} in {op.layer or 'the model'}"
    weight = weight_of(graph, read)
    if weight is None:
        raise NoPlace(f"read without a weight of its own by {where}")
    axis, out_axis, bias = _sides(graph, read, op, where)
    size = graph.state[weight].shape[out_axis]
    if isinstance(bias, Ref):
        if not _is_vector(graph, bias, size):
            raise NoPlace(f"the bias of {where} is not a parameter with one entry an output")
        return Offset(weight, axis, out_axis, "bias", tape.parameters[bias], op.layer)
    follower = _follower(graph, op, size)
    if follower is not None:
        return Offset(weight, axis, out_axis, *follower, op.layer)
    if states_layers(graph.model):
        raise NoPlace(f"{where} has no bias, and what loads the model by its config knows of none")
    module = graph.model.get_submodule(op.layer)
    if can_take_bias(module) and getattr(module, "weight", None) is graph.state[weight]:
        return Offset(
            weight, axis, out_axis, "new", f"{op.layer}.bias" if op.layer else "bias", op.layer
        )
    raise NoPlace(f"{where} has no bias, and none can be given to it")


def states_layers(model: nn.Module) -> bool:
    """Whether a model is written and read by its class and its config (`save_pretrained`,
    `from_pretrained`), which say which layers have a bias.
    """
    return hasattr(model, "save_pretrained") and hasattr(model, "config")


def _pads(graph: Graph, read: Read) -> bool:
    """Whether the operator that reads lays its weight over zeros beside the image too."""
    op = graph.inference.tape.ops[read.position]
    return over_image(op) and any(op["padding"])


def _sides(graph: Graph, read: Read, op: Op, where: str) -> tuple[int, int, Any]:
    """The axes of the weight that are read and put out, and the operator's bias."""
    known = graph.inference.tape.parameters
    weighted = WEIGHTED.get(op)
    if weighted is not None and read.slot == op.place(weighted.rows) and not op.kwargs:
        bias = weighted.operands(op)[2]
        if read.weight in known and not (weighted.image and op["transposed"]):
            return (0, 1, bias) if weighted.turned else (1, 0, bias)
        if weighted.turned and turned_over(graph, read.weight) is not None:
            return 1, 0, bias
    raise NoPlace(f"what {where} puts out of a constant is not the same everywhere")


def turned_over(graph: Graph, ref: Ref | None) -> str | None:
    """The name of the matrix parameter that a value is the transpose of; None where it is of
    none.
    """
    tape = graph.inference.tape
    makers = tape.makers.get(ref, ()) if ref is not None else ()
    maker = tape.ops[makers[0]] if makers else None
    if maker is None or maker.name not in ("aten.t", "aten.transpose", "aten.permute"):
        return None
    name = tape.parameters.get(maker["self"])
    return name if name is not None and graph.state[name].ndim == 2 else None


def _is_vector(graph: Graph, ref: Any, size: int) -> bool:
    name = graph.inference.tape.parameters.get(ref) if isinstance(ref, Ref) else None
    return name is not None and tuple(graph.state[name].shape) == (size,)


def _follower(graph: Graph, op: Op, size: int) -> tuple[Literal["bias", "mean"], str] | None:
    """The normalisation by stored statistics, or the added parameter, that alone reads an
    operator's result.
    """
    tape = graph.inference.tape
    users = tape.readers.get(op.result, ())
    if len(users) != 1 or op.result in tape.outputs:
        return None
    position, user = users[0], tape.ops[users[0]]
    norm = graph.inference.norms_at.get(position)
    if norm is not None:
        return "mean", norm.mean
    if is_sum(user) and not over_image(op):  # a vector would be added along the image's places
        other = next((ref for ref in user.tensors if ref != op.result), None)
        if other is not None and _is_vector(graph, other, size):
            return "bias", tape.parameters[other]
    return None


def _refuse_shared(graph: Graph, place: Offset, own: set[int]) -> None:
    """A bias or mean that others than its own operators use too cannot take up their constant."""
    tape = graph.inference.tape
    results = {ref for position in own for ref in tape.ops[position].outputs}
    refs = tape.named.get(place.tensor, ())
    for position in sorted({at for ref in refs for at in tape.readers.get(ref, ())} - own):
        op = tape.ops[position]
        if not results.intersection(op.tensors):
            raise NoPlace(f"{place.tensor} is used by {op.name} in {op.layer or 'the model'} too")
