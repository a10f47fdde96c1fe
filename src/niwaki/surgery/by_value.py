"""Sizes that are told by their value: attributes that equal a size which changed.

Of attributes that forward reads these are guesses, tried once nothing better is left
(`niwaki.surgery.sizes`); of those that it does not read they count where module and name agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any, Literal

from torch import nn

from niwaki.core.plan import Plan, Size
from niwaki.graph import Graph
from niwaki.graph.terms import keep_mask
from niwaki.running.layers import knows_sizes
from niwaki.running.settings import named, state_of
from niwaki.surgery.evidence import Solution
from niwaki.surgery.unread import layer_changes, named_size

Change = tuple[int, int]  # old and new size
Sizes = dict[str, dict[str, Size]]  # module → attribute → its size
Reach = Literal["sure", "near", "wide"]


def unread_sizes(graph: Graph, plan: Plan) -> Sizes:
    """What follows though forward does not read it (niwaki.surgery.unread)."""
    calls = size_changes(graph, plan)
    roles = {
        name: {role: new for (_, role), pairs in table.items() for _, new in pairs}
        for name, table in calls.items()
    }
    layers, tensors = layer_changes(graph, plan, roles), _tensor_changes(graph, plan)
    owned: dict[str, list[list[Change]]] = defaultdict(list)
    for tensor, pairs in tensors.items():
        owned[_owner(tensor)].append(pairs)
    sizes: Sizes = {}
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
            sizes[name] = renewed
    return sizes


def sizes_by_value(graph: Graph, plan: Plan, solution: Solution, reach: Reach) -> Sizes:
    """Attributes that were read and equal a size that changed; see `size_guesses`."""
    changes = size_changes(graph, plan)
    tensors = _tensor_changes(graph, plan)
    pinned = {(one.module, one.name) for one in solution.pinned}
    sizes = {}
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
            sizes[name] = renewed
    return sizes


def size_changes(graph: Graph, plan: Plan) -> dict[str, dict[tuple[int, str], list[Change]]]:
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
    changed = {}
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or attribute == "training" or attribute not in among:
            continue
        new = _renewed(value, calls, single)
        if new is not value and new != value:
            changed[attribute] = tuple(new) if isinstance(new, list) else new
    return changed | _renewed_in_state(module, single)


def _renewed_in_state(module: nn.Module, single: dict[int, int]) -> dict[str, Size]:
    """The same of sizes by name that a module is made anew from: `axes_lengths.h` of einops'."""
    tables = {key: value for key, value in (state_of(module) or {}).items() if type(value) is dict}
    return {
        f"{attribute}.{key}": single[size]
        for attribute, table in tables.items()
        for key, size in table.items()
        if type(size) is int and single.get(size, size) != size and named(f"{attribute}.{key}")
    }


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
