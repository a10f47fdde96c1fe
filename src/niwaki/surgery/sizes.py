"""Integers that a model keeps about its own sizes, and that must follow when its tensors shrink.

torch's own layers say what they keep (niwaki.running.layers). Of any other module the trace says
which integers reached operators as the size of channels; attributes that the calling module read
and that hold the same integers are taken to be their source. That is a guess, and it is proved or
refused by running the result against the reference. What is found is part of the plan, so that a
saved network gets the sizes that were proved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, Literal, get_args

from torch import nn

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan, Size
from niwaki.graph import Graph
from niwaki.graph.terms import keep_mask
from niwaki.running.layers import knows_sizes, sizes

Change = tuple[int, int]  # old and new size


Sizes = dict[str, dict[str, Size]]
Reach = Literal["sure", "near", "wide"]


def size_guesses(graph: Graph, plan: Plan) -> Iterator[Sizes]:
    """Module → attribute → size in the smaller model, for modules that are not layers of torch's
    own; the surest guess first.

    * sure: integers that the module read and passed on as a size that changed, and none as that
      size that stayed;
    * near: also where another axis of the same size stayed as it was;
    * wide: also from the operators of the modules inside it and of the one around it, and from the
      tensors that it holds: for code that passes its sizes on, or compares them with what it is
          given.
    """
    tried: list[Sizes] = []
    for reach in get_args(Reach):
        guess = kept_sizes(graph, plan, reach)
        if guess not in tried:
            tried.append(guess)
            yield guess


def kept_sizes(graph: Graph, plan: Plan, reach: Reach = "near") -> Sizes:
    """One guess; see `size_guesses`."""
    changes = _changes(graph, plan)
    tensors = _tensor_changes(graph, plan)
    found = {}
    for name, module in graph.model.named_modules():
        if knows_sizes(module):
            continue
        own = [
            pairs
            for tensor, pairs in tensors.items()
            if graph.layer_holds(name, tensor) and _owner(tensor) == name
        ]
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
        read = graph.inference.tape.attributes.get(name, set())
        renewed = {
            **_renewed_by_value(module, own, set(vars(module)), unanimous=True),
            **_renewed_by_value(module, known, read, unanimous=reach == "sure"),
        }
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
    """Give an integer, or a sequence of integers, that is there already its new value; nothing else
    can be set.
    """
    owner: Any = module
    *way, attribute = path.split(".")
    for step in way:
        owner = vars(owner).get(step) if hasattr(owner, "__dict__") else None
    old = vars(owner).get(attribute) if hasattr(owner, "__dict__") else None
    if type(old) is int and type(size) is int:
        setattr(owner, attribute, size)
    elif isinstance(old, (list, tuple)) and isinstance(size, tuple) and len(old) == len(size):
        setattr(owner, attribute, size if isinstance(old, tuple) else list(size))
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
