"""Integers that a model keeps about its own sizes, and that must follow when its tensors shrink.

torch's own layers say what they keep (niwaki.running.layers). Any other module's integers follow
for a reason only, the best reason first:

1. the recorded run shows the integer on its way from the attribute to an operator, as the size of
   channels (niwaki.surgery.evidence);
2. forward does not read it, and its module and name say what it is (niwaki.surgery.unread);
3. the network fails without the change: then attributes that the module's code read and that equal
   a size which changed are tried, and of those the fewest are kept.

Every guess is proved or refused by running the result against the reference. What is found is part
of the plan, so that a saved network gets the sizes that were proved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, get_args

from torch import nn

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan, Size
from niwaki.graph import Graph
from niwaki.graph.terms import keep_mask
from niwaki.running.layers import sizes
from niwaki.running.origins import Attribute
from niwaki.running.settings import made_anew, owner_of, read_path
from niwaki.surgery.by_value import Reach, Sizes, size_changes, sizes_by_value, unread_sizes
from niwaki.surgery.evidence import Evidence, Values
from niwaki.surgery.nested import with_plain_tensors


def size_guesses(graph: Graph, plan: Plan) -> Iterator[Sizes]:
    """Module → attribute → size in the smaller model, for modules that are not layers of torch's
    own; the surest guess first: what operators were given, and nothing else.

    The next adds what operators were given that may not need the change (the end of a slice), the
    others go by value:

    * sure: integers that the module read and passed on as a size that changed, and none as that
      size that stayed;
    * near: also where another axis of the same size stayed as it was;
    * wide: also from the operators of the modules inside it and of the one around it, and from the
      tensors that it holds: for code that passes its sizes on, or compares them with what it is
      given; then of these one attribute of one class at a time.

    Raises:
        SurgeryError: one of two attributes must change and nothing says which, or one stands for
            two sizes that differ now; after the guesses that leave them as they are.
    """
    solution = Evidence(graph, plan).solve()
    shown = _joined(unread_sizes(graph, plan), _as_sizes(graph, solution.sure))
    tried: list[Sizes] = []
    for values in ({}, solution.maybe):
        guess = with_plain_tensors(graph.model, _joined(shown, _as_sizes(graph, values)))
        if guess not in tried:
            tried.append(guess)
            yield guess
    if solution.tied is not None:
        raise _tied(graph, *solution.tied)
    by_value = [sizes_by_value(graph, plan, solution, reach) for reach in get_args(Reach)]
    # an attribute that reached a size that stays may stand for another of the same size too: four
    # heads of four channels
    free = replace(solution, pinned=frozenset())
    unpinned = [sizes_by_value(graph, plan, free, reach) for reach in get_args(Reach)]
    for table in (*by_value, *_kinds(graph, by_value[-1]), *unpinned):
        guess = with_plain_tensors(graph.model, _joined(shown, table))
        if guess not in tried:
            tried.append(guess)
            yield guess
    if solution.torn is not None:
        raise _torn(graph, *solution.torn)


def least_sizes(graph: Graph, plan: Plan, sizes: Sizes, proves: Callable[[Sizes], bool]) -> Sizes:
    """Of sizes that prove, the fewest that do: what no operator showed is left out kind by kind (an
    attribute of all modules of a class).

    Raises:
        SurgeryError: one of two attributes must change, and either would do.
    """
    solution = Evidence(graph, plan).solve()
    shown = _joined(unread_sizes(graph, plan), _as_sizes(graph, solution.sure))
    unshown = {name: _beyond(table, shown.get(name, {})) for name, table in sizes.items()}
    needed: list[Sizes] = []
    for kind in _kinds(graph, unshown):
        fewer = _without(sizes, kind)
        if proves(fewer):
            sizes = fewer
        else:
            needed.append(kind)
    others = _kinds(graph, sizes_by_value(graph, plan, solution, "wide")) if needed else []
    for kind in needed:
        for other in (other for other in others if other not in needed):
            if kind.keys() == other.keys() and proves(_joined(_without(sizes, kind), other)):
                raise _either(graph, kind, other)
    return sizes


def _beyond(table: dict[str, Size], shown: dict[str, Size]) -> dict[str, Size]:
    return {name: size for name, size in table.items() if shown.get(name) != size}


def _kinds(graph: Graph, sizes: Sizes) -> list[Sizes]:
    """The same, apart by class and attribute."""
    kinds: dict[tuple[type, str], Sizes] = defaultdict(dict)
    for name, table in sizes.items():
        for attribute, size in table.items():
            kinds[type(graph.model.get_submodule(name)), attribute][name] = {attribute: size}
    return list(kinds.values())


def _without(sizes: Sizes, kind: Sizes) -> Sizes:
    fewer = {
        name: {key: size for key, size in table.items() if key not in kind.get(name, {})}
        for name, table in sizes.items()
    }
    return {name: table for name, table in fewer.items() if table}


def _joined(one: Sizes, other: Sizes) -> Sizes:
    names = [*one, *(name for name in other if name not in one)]
    return {name: {**one.get(name, {}), **other.get(name, {})} for name in names}


def _as_sizes(graph: Graph, values: Values) -> Sizes:
    """Attributes with their values, entries of tuples and lists put together."""
    sizes: Sizes = defaultdict(dict)
    for one, new in values.items():
        if one.index is None:
            sizes[one.module][one.name] = new
            continue
        held = read_path(graph.model.get_submodule(one.module), one.name)
        entries = list(sizes[one.module].get(one.name, tuple(held)))
        entries[one.index] = new
        sizes[one.module][one.name] = tuple(entries)
    return dict(sizes)


def _tied(graph: Graph, attributes: tuple[Attribute, ...], position: int) -> SurgeryError:
    op = graph.inference.tape.ops[position]
    return SurgeryError(
        f"{' and '.join(map(str, attributes))} cannot be told apart: {op.name} in "
        f"{op.layer or 'the model'}{graph.inference.tape.line(position)} is given what was "
        "computed from them, and a change of either would fit; read the size from a tensor there",
        op.layer,
        position,
    )


def _torn(graph: Graph, attribute: Attribute, position: int) -> SurgeryError:
    op = graph.inference.tape.ops[position]
    return SurgeryError(
        f"{attribute} states several sizes, which differ once they are cut: the last is given to "
        f"{op.name} in {op.layer or 'the model'}{graph.inference.tape.line(position)}; give each "
        "size an attribute of its own, or read it from a tensor",
        op.layer,
        position,
    )


def _either(graph: Graph, kind: Sizes, other: Sizes) -> SurgeryError:
    layer = next(iter(kind))
    one, two = (str(Attribute(layer, next(iter(table[layer])))) for table in (kind, other))
    return SurgeryError(
        f"{one} and {two} cannot be told apart: one of them must change with the layers, and "
        "either would do; read the size from a tensor",
        layer,
    )


def follow_sizes(model: nn.Module, graph: Graph, plan: Plan) -> None:
    """Set the size attributes of all modules of the smaller model: torch's own by their tensors,
    others by the plan.

    Raises:
        SurgeryError: the plan sets what is not a size attribute of the model.
    """
    changes, normalised = size_changes(graph, plan), _normalised(graph, plan)
    for name, module in model.named_modules():
        roles: dict[str, Any] = {
            role: new for (_, role), pairs in changes.get(name, {}).items() for _, new in pairs
        }
        if name in normalised:
            roles["normalized_shape"] = normalised[name]
        if isinstance(module, nn.modules.instancenorm._InstanceNorm):
            roles["num_features"] = _given(graph, plan, name, 1, module.num_features)
        for attribute, value in sizes(module, roles).items():
            if getattr(module, attribute) != value:
                setattr(module, attribute, value)
    modules = dict(model.named_modules())
    for name, table in (plan.sizes or {}).items():
        for attribute, size in table.items():
            _set(modules.get(name), name, attribute, size)
        made_anew(modules[name])


def _set(module: nn.Module | None, name: str, path: str, size: Size) -> None:
    """Give an integer (a switch: 0), or a sequence of integers, that is there already its new
    value; nothing else can be set.
    """
    table, attribute = owner_of(module, path)
    old = None if table is None else table.get(attribute)
    if table is not None and type(old) in (int, bool) and type(size) is int:
        table[attribute] = size
    elif (
        table is not None
        and isinstance(old, (list, tuple))
        and isinstance(size, tuple)
        and len(old) == len(size)
    ):
        table[attribute] = size if isinstance(old, tuple) else list(size)
    else:
        raise SurgeryError(
            f"the plan sets {name}.{path} to {size}, which is no size that the model keeps", name
        )


def _normalised(graph: Graph, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Layer → what is left of the axes that its first operator with statistics takes them over.

    A layer norm without weights has no tensor that shows its size.
    """
    masks = graph.masks(plan.kept)
    first: dict[str, int] = {}
    left: dict[str, list[int]] = defaultdict(list)
    for read in sorted(graph.inference.reads, key=lambda read: (read.position, read.axis)):
        layer = graph.inference.tape.ops[read.position].layer
        if read.statistics and first.setdefault(layer, read.position) == read.position:
            left[layer].append(int(keep_mask(read.whole, masks).sum()))
    return {layer: tuple(shape) for layer, shape in left.items()}


def _given(graph: Graph, plan: Plan, layer: str, axis: int, size: int) -> int:
    """What is left of an axis of a batch that a layer is given: of one without tensors, nothing
    else shows it. The size itself, where the layer did not run, or ran without a batch.
    """
    inference = graph.inference
    for op in inference.tape.ops:
        if op.layer == layer and op.tensors:
            terms = inference.axes.get(op.tensors[0], [])
            if axis < len(terms) and terms[axis].size == size:
                return int(keep_mask(terms[axis], graph.masks(plan.kept)).sum())
            break
    return size
