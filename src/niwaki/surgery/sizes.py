"""Integers that a model keeps about its own sizes, and that must follow when its tensors shrink.

torch's own layers say what they keep (niwaki.graph.layers). Of any other module the trace says which integers reached
operators as the size of channels; attributes of the calling module that hold the same integers are taken to be their
source. That is a guess, and it is proved or refused by running the result against the reference.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from niwaki.graph import Graph
from niwaki.graph.layers import sizes
from niwaki.graph.terms import keep_mask
from niwaki.plan import Plan

Change = tuple[int, int]  # old and new size


def follow_sizes(model: nn.Module, graph: Graph, plan: Plan, *, wide: bool = False) -> None:
    """Set the size attributes of all modules of the smaller model.

    Args:
        wide: guess also from the operators of the modules inside a module and of the one around it, and from the tensors
            that it holds: for code that passes its sizes on, or compares them with what it is given.
    """
    changes = _changes(graph, plan)
    tensors = _tensor_changes(graph, plan) if wide else {}
    for name, module in model.named_modules():
        calls = changes.get(name, {})
        roles = {role: new for (_, role), pairs in calls.items() for _, new in pairs}
        own = sizes(module, roles)
        for attribute, value in own.items():
            if getattr(module, attribute) != value:
                setattr(module, attribute, value)
        if not own:
            known = list(calls.values())
            if wide:
                # and its parent's, which may call a method of it that is not its forward
                near = [layer for layer in changes if _within(layer, name) or layer == name.rpartition(".")[0]]
                known += [pairs for layer in near for pairs in changes[layer].values()]
                known += [pairs for tensor, pairs in tensors.items() if _within(tensor, name)]
            _follow_by_value(module, known)


def _changes(graph: Graph, plan: Plan) -> dict[str, dict[tuple[int, str], list[Change]]]:
    """Layer → operator call and argument → sizes before and after, for calls in which any changed."""
    masks = graph.masks(plan.kept)
    calls: dict[str, dict[tuple[int, str], list[Change]]] = defaultdict(lambda: defaultdict(list))
    for number in graph.inference.numbers:
        pair = (number.term.size, int(keep_mask(number.term, masks).sum()))
        calls[number.layer][number.position, number.role].append(pair)
    return {
        layer: {call: pairs for call, pairs in table.items() if any(old != new for old, new in pairs)}
        for layer, table in calls.items()
    }


def _tensor_changes(graph: Graph, plan: Plan) -> dict[str, list[Change]]:
    """Parameter or buffer → sizes of its axes before and after."""
    after = graph.shapes_after(plan.kept)
    return {name: list(zip(tensor.shape, after[name], strict=True)) for name, tensor in graph.state.items()}


def _within(name: str, module: str) -> bool:
    return not module or name == module or name.startswith(f"{module}.")


def _follow_by_value(module: nn.Module, calls: list[list[Change]]) -> None:
    """Change attributes that equal a changed size, or a sequence that equals neighbouring sizes of one call."""
    renamed: dict[int, set[int]] = defaultdict(set)
    for pairs in calls:
        for old, new in pairs:
            if old != new:
                renamed[old].add(new)
    single = {old: next(iter(new)) for old, new in renamed.items() if len(new) == 1}
    for attribute, value in list(vars(module).items()):
        if attribute.startswith("_") or attribute == "training":
            continue
        new = _renewed(value, calls, single)
        if new is not value:
            setattr(module, attribute, new)


def _renewed(value: Any, calls: list[list[Change]], single: dict[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return single.get(value, value)
    if type(value) in (list, tuple) and value and all(type(item) is int for item in value):
        runs = (pairs[i : i + len(value)] for pairs in calls for i in range(len(pairs) - len(value) + 1))
        renewed = {tuple(new for _, new in run) for run in runs if [old for old, _ in run] == list(value)} - {tuple(value)}
        if len(renewed) == 1:
            return type(value)(renewed.pop())
    return value
