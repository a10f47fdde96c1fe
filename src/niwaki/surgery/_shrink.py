"""Cut the tensors of a copy of the model, fold the mixings into its consumers, and let the sizes
that it keeps follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from niwaki.core.errors import SurgeryError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Graph, Role
from niwaki.graph.offset import Offset
from niwaki.graph.offsets import offsets
from niwaki.graph.terms import Term, Var, transform
from niwaki.methods.base.cut import Cut
from niwaki.running import duplicate, named_state, preserved_mode
from niwaki.running.computed import computed_again
from niwaki.running.layers import give_bias
from niwaki.surgery.block_layers import BlockSparse, blocks_left, with_blocks
from niwaki.surgery.branches import put_stand_ins
from niwaki.surgery.sizes import follow_sizes, size_guesses


def shrink(cut: Cut) -> nn.Module:
    """A smaller copy of the graph's model; the model itself is not touched.

    Class, dtype, device, requires_grad, hooks, shared parameters and train/eval modes are those of
    the original. The result is not checked here: `niwaki.check` does that.

    Args:
        cut: its mixings are folded into the consumers of their groups. Where its plan says nothing
            of the sizes that the user's modules keep, the surest guess is taken.

    Raises:
        SurgeryError: the model cannot be copied, or a mixing has a shift that no consumer can take
            up.
    """
    model = shrink_plainly(cut)
    if not cut.plan.blocks:
        computed_again(model, cut.graph.computed)
    return model


def shrink_plainly(cut: Cut) -> nn.Module:
    """The same, with ordinary parameters for weights that the original computes (weight_norm)."""
    graph, plan = cut.graph, cut.plan
    model = _copied(graph.model)
    with preserved_mode(model, training=False):
        # as for the trace: modules that keep full-size tensors for evaluation drop them when the
        # mode is set
        pass
    fill(model, cut)
    follow_sizes(
        model,
        graph,
        plan if plan.sizes is not None else replace(plan, sizes=next(size_guesses(graph, plan))),
    )
    for layers in plan.branches.values():
        put_stand_ins(model, layers)
    return with_blocks(model, blocks_left(graph, plan)) if plan.blocks else model


def fill(model: nn.Module, cut: Cut, state: Mapping[str, Tensor] | None = None) -> None:
    """Give every tensor of a copy what is left of the same tensor of the graph's model, and of the
    mixings' constants.

    Args:
        state: by name, in the place of the tensors of the graph's model.
    """
    graph, plan, mixings = cut.graph, cut.plan, cut.mixings
    state = masked_state(plan, graph.state if state is None else state)
    cutter = _Cutter(cut)
    shapes = graph.shapes_after(plan.kept)
    constants = [
        constant
        for name in plan.kept
        if name in mixings
        for constant in _constants(graph, state, name, mixings[name])
    ]
    added: dict[str, list[Constant]] = defaultdict(list)
    for item in constants:
        added[item[0].tensor].append(item)
    with torch.no_grad():
        for name, tensor in named_state(model).items():
            if name not in graph.state:
                continue  # a bias that an earlier call has made: below
            layer = model.get_submodule(name.rpartition(".")[0])
            whole = _shifted(state[name].detach(), added.get(name, []))
            if isinstance(layer, BlockSparse) and name.endswith(".weight"):
                layer.take(cutter.cut(whole, graph.inference.parameters[name], name))
            elif shapes[name] != tuple(whole.shape):
                # the same Parameter object goes on: shared names, hooks and requires_grad stay with
                # it
                tensor.grad = None
                tensor.data = cutter.cut(whole, graph.inference.parameters[name], name)
            elif isinstance(tensor, nn.Parameter):
                # never into its memory, which may be the original's yet
                tensor.data = torch.empty_like(tensor).copy_(whole)
            else:
                tensor.copy_(whole)
        _give_biases(model, graph, cutter, [item for item in constants if item[0].kind == "new"])


def masked_state(plan: Plan, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A network's tensors by name, with zeros where the plan has no blocks of weights."""
    masked = {
        name: state[name].detach() * blocks.mask(state[name])
        for name, blocks in plan.blocks.items()
    }
    return {**state, **masked} if masked else state


def cut_tensors(cut: Cut, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is left of some of the model's tensors, given by name in the place of its own.

    Raises:
        SurgeryError: a mixing has a shift, which needs tensors of other layers.
    """
    for name, mixing in cut.mixings.items():
        if mixing.shifted:
            raise SurgeryError(
                f"the mixing of {name} has a shift, which cannot be folded tensor by tensor"
            )
    cutter, terms = _Cutter(cut), cut.graph.inference.parameters
    return {
        name: cutter.cut(tensor, terms[name], name) if name in terms else tensor
        for name, tensor in tensors.items()
    }


Constant = tuple[Offset, Tensor]


def _constants(
    graph: Graph, state: Mapping[str, Tensor], name: str, mixing: Mixing
) -> list[Constant]:
    """W · shift of every consumer of a group, and where it goes."""
    if not mixing.shifted:
        return []
    places, obstacle = offsets(graph, name)
    if obstacle is not None:
        raise SurgeryError(
            f"the mixing of {name} has a shift, which its consumers cannot take up: {obstacle}"
        )
    units = {
        (piece.tensor, piece.axis): piece.units for piece in graph[name].of_role(Role.CONSUMER)
    }
    constants = []
    for place in places:
        shift = mixing.at(place.weight).shift
        if shift is not None:
            constants.append(
                (
                    place,
                    place.constant(state[place.weight], units[place.weight, place.axis], shift),
                )
            )
    return constants


def _shifted(tensor: Tensor, constants: list[Constant]) -> Tensor:
    """A bias with what is added to it, or a stored mean with what is taken from it."""
    if not constants:
        return tensor
    total = tensor.double()
    for place, constant in constants:
        total = total + constant if place.kind == "bias" else total - constant
    return total.to(tensor.dtype)


def _give_biases(
    model: nn.Module, graph: Graph, cutter: _Cutter, constants: list[Constant]
) -> None:
    totals: dict[str, Tensor] = {}
    places = {place.layer: place for place, _ in constants}
    for place, constant in constants:
        totals[place.layer] = totals[place.layer] + constant if place.layer in totals else constant
    for layer, total in totals.items():
        place = places[layer]
        terms = [graph.inference.parameters[place.weight][place.out_axis]]
        give_bias(model.get_submodule(layer), cutter.cut(total, terms))


def _copied(model: nn.Module) -> nn.Module:
    try:
        return duplicate(model, share=True)
    except Exception as error:
        raise SurgeryError(
            f"the model cannot be copied (copy.deepcopy: {error}); prune it before what holds it "
            "is attached"
        ) from error


class _Cutter:
    """Cuts one tensor at a time, along all of its axes that lose channels."""

    def __init__(self, cut: Cut) -> None:
        graph, plan, mixings = cut.graph, cut.plan, cut.mixings
        self._kept = {
            graph.variables[name]: torch.as_tensor(units, device="cpu")
            for name, units in plan.kept.items()
        }
        self._mixings = {graph.variables[name]: mixing for name, mixing in mixings.items()}
        self._consumers: dict[Var, set[tuple[str, int]]] = defaultdict(set)
        for name in mixings:
            pieces = graph[name].of_role(Role.CONSUMER)
            self._consumers[graph.variables[name]] = {
                (piece.tensor, piece.axis) for piece in pieces
            }

    def cut(self, tensor: Tensor, terms: list[Term], name: str = "") -> Tensor:
        """The tensor with its channels cut, and mixed where it consumes them; dtype and memory
        layout stay.

        Args:
            terms: what its axes are made of.
            name: of a tensor of the model; none for one that is new.
        """
        layout = torch.channels_last if _is_channels_last(tensor) else torch.contiguous_format
        out = tensor
        for axis, term in enumerate(terms):

            def change(var: Var, part: Tensor, at: int, axis: int = axis) -> Tensor:
                if (name, axis) in self._consumers[var]:
                    return mixed(part, at, self._mixings[var].at(name).matrix)
                if var in self._kept:
                    return part.index_select(at, self._kept[var].to(part.device))
                return part

            out = transform(term, out, axis, change)
        return _laid(out.to(tensor.dtype), layout)


def _laid(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """The tensor with the strides of a new one: with sizes of one among its axes, others may count
    as contiguous too, and a convolution by such a weight lays its result out the other way.
    """
    plain = torch.empty(tensor.shape, device="meta").stride()
    if layout is torch.contiguous_format and tensor.stride() != plain:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
    return tensor.contiguous(memory_format=layout)


def mixed(tensor: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """tensor · matrix along one axis, in at least the precision of float32: (…, width, …) → (…,
    kept, …).
    """
    dtype = (
        torch.float64
        if tensor.dtype == torch.float64
        else torch.promote_types(tensor.dtype, torch.float32)
    )
    product: Tensor = torch.tensordot(
        tensor.to(dtype), matrix.to(tensor.device, dtype), dims=([axis], [0])
    )
    return product.movedim(-1, axis)


def _is_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    )
