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
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Literal, get_args

from torch import nn

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan, Size
from niwaki.graph import Graph
from niwaki.graph.terms import keep_mask
from niwaki.running.layers import knows_sizes, sizes
from niwaki.running.origins import Attribute
from niwaki.running.settings import owner_of, read_path
from niwaki.surgery.evidence import Evidence, Solution, Values
from niwaki.surgery.nested import with_plain_tensors
from niwaki.surgery.unread import layer_changes, named_size

Change = tuple[int, int]  # old and new size


Sizes = dict[str, dict[str, Size]]
Reach = Literal["sure", "near", "wide"]


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
    shown = _joined(_unread_sizes(graph, plan), _as_sizes(graph, solution.sure))
    tried: list[Sizes] = []
    for values in ({}, solution.maybe):
        guess = with_plain_tensors(graph.model, _joined(shown, _as_sizes(graph, values)))
        if guess not in tried:
            tried.append(guess)
            yield guess
    if solution.tied is not None:
        raise _tied(graph, *solution.tied)
    by_value = [_sizes_by_value(graph, plan, solution, reach) for reach in get_args(Reach)]
    # an attribute that reached a size that stays may stand for another of the same size too: four
    # heads of four channels
    free = replace(solution, pinned=frozenset())
    unpinned = [_sizes_by_value(graph, plan, free, reach) for reach in get_args(Reach)]
    for found in (*by_value, *_kinds(graph, by_value[-1]), *unpinned):
        guess = with_plain_tensors(graph.model, _joined(shown, found))
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
    shown = _joined(_unread_sizes(graph, plan), _as_sizes(graph, solution.sure))
    unshown = {name: _beyond(table, shown.get(name, {})) for name, table in sizes.items()}
    needed: list[Sizes] = []
    for kind in _kinds(graph, unshown):
        fewer = _without(sizes, kind)
        if proves(fewer):
            sizes = fewer
        else:
            needed.append(kind)
    others = _kinds(graph, _sizes_by_value(graph, plan, solution, "wide")) if needed else []
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
    found: Sizes = defaultdict(dict)
    for one, new in values.items():
        if one.index is None:
            found[one.module][one.name] = new
            continue
        held = read_path(graph.model.get_submodule(one.module), one.name)
        entries = list(found[one.module].get(one.name, tuple(held)))
        entries[one.index] = new
        found[one.module][one.name] = tuple(entries)
    return dict(found)


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


def _unread_sizes(graph: Graph, plan: Plan) -> Sizes:
    """What follows though forward does not read it (niwaki.surgery.unread)."""
    calls = _changes(graph, plan)
    roles = {
        name: {role: new for (_, role), pairs in table.items() for _, new in pairs}
        for name, table in calls.items()
    }
    layers, tensors = layer_changes(graph, plan, roles), _tensor_changes(graph, plan)
    owned: dict[str, list[list[Change]]] = defaultdict(list)
    for tensor, pairs in tensors.items():
        owned[_owner(tensor)].append(pairs)
    found: Sizes = {}
    for name, module in graph.model.named_modules():
        read = graph.inference.tape.attributes.get(name, set())
        unread = {
            key
            for key in vars(module)
            if key not in read and not key.startswith("_") and key != "training"
        }
        if knows_sizes(module) or not unread:
            continue
        if not any(map(_may_be_sizes, (vars(module)[key] for key in unread))):
            continue
        inside = [table for layer, table in layers.items() if _within(layer, name)]
        renewed = _renewed_by_value(module, owned.get(name, []), unread, unanimous=True)
        for key in sorted(unread - renewed.keys()):
            value = vars(module)[key]
            new = named_size(key, value, inside) if type(value) is int else None
            if new is not None:
                renewed[key] = new
        if renewed:
            found[name] = renewed
    return found


def _sizes_by_value(graph: Graph, plan: Plan, solution: Solution, reach: Reach) -> Sizes:
    """Attributes that were read and equal a size that changed; see `size_guesses`."""
    changes = _changes(graph, plan)
    tensors = _tensor_changes(graph, plan)
    pinned = {(one.module, one.name) for one in solution.pinned}
    found = {}
    for name, module in graph.model.named_modules():
        if knows_sizes(module):
            continue
        known = list(changes.get(name, {}).values())
        if reach == "wide":
            # and its parent's, which may call a method of it that is not its forward
            near = [
                layer
                for layer in changes
                if _within(layer, name) or layer == name.rpartition(".")[0]
            ]
            known += [pairs for layer in near for pairs in changes[layer].values()]
            known += [pairs for tensor, pairs in tensors.items() if _within(tensor, name)]
        read = {
            key
            for key in graph.inference.tape.attributes.get(name, set())
            if (name, key) not in pinned
        }
        renewed = _renewed_by_value(module, known, read, unanimous=reach == "sure")
        if renewed:
            found[name] = renewed
    return found


def follow_sizes(model: nn.Module, graph: Graph, plan: Plan) -> None:
    """Set the size attributes of all modules of the smaller model: torch's own by their tensors,
    others by the plan.

    Raises:
        SurgeryError: the plan sets what is not a size attribute of the model.
    """
    changes, normalised = _changes(graph, plan), _normalised(graph, plan)
    for name, module in model.named_modules():
        roles: dict[str, Any] = {
            role: new for (_, role), pairs in changes.get(name, {}).items() for _, new in pairs
        }
        if name in normalised:
            roles["normalized_shape"] = normalised[name]
        for attribute, value in sizes(module, roles).items():
            if getattr(module, attribute) != value:
                setattr(module, attribute, value)
    modules = dict(model.named_modules())
    for name, table in (plan.sizes or {}).items():
        for attribute, size in table.items():
            _set(modules.get(name), name, attribute, size)


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


def _changes(graph: Graph, plan: Plan) -> dict[str, dict[tuple[int, str], list[Change]]]:
    """Layer → operator call and argument → sizes before and after, for calls in which any
    changed.
    """
    masks = graph.masks(plan.kept)
    calls: dict[str, dict[tuple[int, str], list[Change]]] = defaultdict(lambda: defaultdict(list))
    for number in graph.inference.numbers:
        pair = (number.term.size, int(keep_mask(number.term, masks).sum()))
        calls[number.layer][number.position, number.role].append(pair)
    return {
        layer: {
            call: pairs for call, pairs in table.items() if any(old != new for old, new in pairs)
        }
        for layer, table in calls.items()
    }


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


def _tensor_changes(graph: Graph, plan: Plan) -> dict[str, list[Change]]:
    """Parameter or buffer → sizes of its axes before and after."""
    after = graph.shapes_after(plan.kept)
    return {
        name: list(zip(tensor.shape, after[name], strict=True))
        for name, tensor in graph.state.items()
    }


def _may_be_sizes(value: Any) -> bool:
    return isinstance(value, (int, tuple, list)) and not isinstance(value, bool)


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


def _owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _renewed_by_value(
    module: nn.Module, calls: list[list[Change]], among: Collection[str], *, unanimous: bool
) -> dict[str, Size]:
    """Attributes that equal a changed size, or a sequence that equals neighbouring sizes of one
    call, with their new value.

    Args:
        among: the attributes that come into question.
        unanimous: an integer changes only if no equal size stayed as it was.
    """
    renamed: dict[int, set[int]] = defaultdict(set)
    for pairs in calls:
        for old, new in pairs:
            if old != new or unanimous:
                renamed[old].add(new)
    single = {old: next(iter(new)) for old, new in renamed.items() if len(new) == 1}
    found = {}
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or attribute == "training" or attribute not in among:
            continue
        new = _renewed(value, calls, single)
        if new is not value and new != value:
            found[attribute] = tuple(new) if isinstance(new, list) else new
    return found


def _renewed(value: Any, calls: list[list[Change]], single: dict[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return single.get(value, value)
    if type(value) in (list, tuple) and value and all(type(item) is int for item in value):
        runs = (
            pairs[i : i + len(value)] for pairs in calls for i in range(len(pairs) - len(value) + 1)
        )
        renewed = {
            tuple(new for _, new in run) for run in runs if [old for old, _ in run] == list(value)
        } - {tuple(value)}
        if len(renewed) == 1:
            return type(value)(renewed.pop())
    return value
