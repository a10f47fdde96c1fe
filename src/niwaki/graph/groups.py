"""From terms to groups: every free variable that occurs in a parameter is one, its occurrences are
the slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from niwaki.graph.flow import follow
from niwaki.graph.group import Frozen, Group, Role, Scale, Slice
from niwaki.graph.inference import Inference, Read
from niwaki.graph.reasons import PLACES, Reason
from niwaki.graph.terms import Var, leaves, positions
from niwaki.running import Ref


def layer_of(tensor: str) -> str:
    """The layer that a tensor's name belongs to: all but its last part (a bare parameter names
    itself).

    What a parametrisation (weight_norm) makes a weight of belongs to the layer of that weight.
    """
    tensor = (
        tensor.replace("parametrizations.", "", 1).rpartition(".")[0]
        if "parametrizations." in tensor
        else tensor
    )
    return tensor.rpartition(".")[0] or tensor


@dataclass
class _Uses:
    """Where one variable appears: axes of parameters with their roles, operators, reads; and the
    reads of other paths than the example's.
    """

    roles: dict[tuple[str, int], set[Role]] = field(default_factory=lambda: defaultdict(set))
    operators: list[int] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    elsewhere: list[tuple[Inference, Read]] = field(default_factory=list)


def build_groups(
    state: Inference, others: Sequence[Inference] = ()
) -> tuple[tuple[Group, ...], dict[str, Var], tuple[Frozen, ...]]:
    """All groups with their variables, and what is frozen."""
    groups: list[Group] = []
    variables: dict[str, Var] = {}
    uses = _collect(state)
    for other in others:
        for var, use in _collect(other).items():
            if var in uses:
                _add(uses[var], other, use)
    for var, use in uses.items():
        if var.frozen or var.size < 2:
            continue
        group = _build(state, var, use, variables)
        if group is not None:
            groups.append(group)
            variables[group.name] = var
    return tuple(groups), variables, _frozen(state)


def _collect(state: Inference) -> dict[Var, _Uses]:
    """One walk over the tape that notes every variable where it is seen."""
    # dicts for ordered sets: groups come out in the same order in every run
    leaf_sets = {
        ref: dict.fromkeys(var for term in terms for var in leaves(term))
        for ref, terms in state.axes.items()
    }
    reads: dict[int, list[Read]] = defaultdict(list)
    for read in state.reads:
        reads[read.position].append(read)
    uses: dict[Var, _Uses] = defaultdict(_Uses)
    for position, op in enumerate(state.tape.ops):
        values = [ref for ref in (*op.tensors, *op.outputs) if ref is not None]
        for var in _union(leaf_sets[ref] for ref in values if ref not in state.origins):
            uses[var].operators.append(position)
        for read in reads[position]:
            for var in dict.fromkeys(leaves(read.term)):
                uses[var].reads.append(read)
        if any(out in state.origins for out in op.outputs):
            # parameters among themselves: what is made of them gets a role where it meets an
            # activation
            continue
        summed = {
            var for read in reads[position] if read.weight is not None for var in leaves(read.term)
        }
        carried = (
            _union(leaf_sets[ref] for ref in op.tensors if ref not in state.origins).keys() - summed
        )
        for ref in op.tensors:
            if ref in state.origins:
                _note_roles(
                    state,
                    ref,
                    [read for read in reads[position] if read.weight == ref],
                    carried,
                    uses,
                )
    return uses


def _add(use: _Uses, other: Inference, more: _Uses) -> None:
    """What another path does with a variable: its roles, and what is in a mixing's way there."""
    for place, roles in more.roles.items():
        use.roles[place] |= roles
    use.elsewhere += [(other, read) for read in more.reads]


def _union(sets: Iterable[dict[Var, None]]) -> dict[Var, None]:
    return {var: None for members in sets for var in members}


def _note_roles(
    state: Inference, ref: Ref, reads: list[Read], carried: Set[Var], uses: dict[Var, _Uses]
) -> None:
    """The roles of an operand that is made of parameters, noted at the axes of these."""
    consumed = {var for read in reads for var in leaves(read.term)}
    read_axes = [state.axes[ref][read.weight_axis] for read in reads]
    for name in state.origins[ref].names:
        # a layer from a stream into itself has the same channels on two axes, and reads one of them
        told_apart = any(term is read for term in state.parameters[name] for read in read_axes)
        for axis, term in enumerate(state.parameters[name]):
            is_read = not told_apart or any(term is read for read in read_axes)
            for var in dict.fromkeys(leaves(term)):
                consumes = var in consumed and is_read
                role = (
                    Role.CONSUMER if consumes else Role.CARRIER if var in carried else Role.PRODUCER
                )
                uses[var].roles[name, axis].add(role)


def _build(state: Inference, var: Var, use: _Uses, named: dict[str, Var]) -> Group | None:
    slices = tuple(
        Slice(name, axis, _main_role(roles), positions(state.parameters[name][axis], var))
        for (name, axis), roles in use.roles.items()
    )
    layers = tuple(
        dict.fromkeys(layer_of(piece.tensor) for piece in slices if piece.role is Role.PRODUCER)
    )
    if not layers:
        return None
    name, count = layers[0], 1
    while name in named:
        count += 1
        name = f"{layers[0]}#{count}"
    writers, scaling_obstacle = follow(
        state, var, use.operators, {(p.tensor, p.axis): p for p in slices}
    )
    obstacle, normalised = _fold_obstacle(state, use), _normalised(state, use)
    scales = tuple(
        Scale(piece, state.scales[piece.tensor]) for piece in slices if piece.tensor in state.scales
    )
    return Group(
        name, var.size, layers, slices, writers, scaling_obstacle, obstacle, normalised, scales
    )


def _main_role(roles: set[Role]) -> Role:
    return next(role for role in (Role.PRODUCER, Role.CONSUMER, Role.CARRIER) if role in roles)


def _fold_obstacle(state: Inference, use: _Uses) -> str | None:
    """Why consumers' weights cannot take up a mixing of the units."""
    for path, read in [*((state, read) for read in use.reads), *use.elsewhere]:
        op = path.tape.ops[read.position]
        where = f"{op.name} in {op.layer or 'the model'}"
        if read.statistics:
            continue
        if op.args[read.slot] in path.origins:
            return f"summed between parameters by {where}"
        if path.tape.dtypes[op.args[read.slot].index].is_complex:
            return f"read as complex numbers by {where}"
        if read.weight is None:
            return f"read without a weight by {where}"
        if not path.origins[read.weight].pure:
            return f"read through a computed weight by {where}"
    for (name, _), roles in use.roles.items():
        if Role.CONSUMER in roles and len(roles) > 1:
            return f"{name} reads the units and writes or carries them too"
    return None


def _normalised(state: Inference, use: _Uses) -> str | None:
    """The first operator that takes statistics over the units."""
    normalisations = (state.tape.ops[read.position] for read in use.reads if read.statistics)
    return next((f"{op.name} in {op.layer or 'the model'}" for op in normalisations), None)


def _frozen(state: Inference) -> tuple[Frozen, ...]:
    """Channels that could have been a group but for the reason that froze them, one line a layer
    and reason.
    """
    lines: dict[tuple[str, Reason], int] = {}
    for name, terms in state.parameters.items():
        for term in terms:
            for var in leaves(term):
                if var.frozen and var.frozen not in PLACES and var.size > 1:
                    lines.setdefault((layer_of(name), var.frozen), var.size)
    return tuple(Frozen(layer, width, reason) for (layer, reason), width in lines.items())
