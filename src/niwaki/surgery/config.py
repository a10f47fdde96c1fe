"""The configuration that a model is built from, made to state the sizes of the smaller one, where
it can.

A model of many libraries is `Class(config)` and keeps the config (Hugging Face's do): what saves,
loads and generates reads its sizes there. Which of its entries are the sizes that changed is tried
out: an entry belongs to them if the class, built with the entry changed, comes nearer to the pruned
model's shapes. The changes are kept only if all shapes are met, and if a
model built from the new config, given the pruned weights, computes the same (a rotary frequency, or
a scale, is no shape). Several layers of one width in the config that lost different numbers of
units cannot be stated; then nothing changes.
"""

from __future__ import annotations

import copy
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from niwaki.core.errors import TraceError
from niwaki.core.plan import Plan, Size
from niwaki.graph import Graph
from niwaki.running import (
    Inputs,
    call,
    copied,
    duplicate,
    preserved_rng,
    record,
    seed_all,
    tensors_in,
    undisturbed,
)
from niwaki.running.compare import difference, same_structure, tolerance
from niwaki.running.probes import telling_inputs, with_telling_weights
from niwaki.surgery.sizes import follow_sizes

Shapes = Mapping[str, tuple[int, ...]]
EXACT = 1e-6  # code may go through float32 within, on both sides alike
SECONDS = 10.0  # of this process: building stops after it; the config is then left alone
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # of a block, in a tensor's name


def follow_config(pruned: nn.Module, graph: Graph, plan: Plan) -> tuple[Plan, str | None]:
    """Make the config of a proved pruned model state its sizes, if a model built from it then
    computes the same.

    Returns:
        the plan with the sizes set, and a sentence where the config cannot state them.
    """
    builder = _builder(graph.original)
    if builder is None:
        return plan, None
    attribute, was = builder
    shapes = {name: tuple(tensor.shape) for name, tensor in pruned.state_dict().items()}
    wanted = {name: shapes.get(name, shape) for name, shape in was.items()}
    if wanted == was:
        return plan, None
    known = plan.sizes or {}
    for sizes in _solutions(graph.original, attribute, was, wanted):
        stated = replace(plan, sizes={**known, "": {**known.get("", {}), **sizes}})
        twin = duplicate(pruned)
        follow_sizes(twin, graph, stated)
        if _rebuilds(twin, graph, attribute):
            follow_sizes(pruned, graph, stated)
            return stated, None
    uneven = _uneven(wanted)
    return plan, (
        f"the model's {attribute} cannot state the cut{uneven and ': ' + uneven}; use "
        f"uniform=True, or load the network with niwaki.load, not from its {attribute}, which is "
        "left as it was"
    )


def _uneven(wanted: Shapes) -> str:
    """Two tensors of one name in different blocks that got different shapes."""
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in wanted.items():
        first, other = seen.setdefault(_NUMBER.sub("*", name), (name, shape))
        if other != shape:
            return f"{first} has the shape {other}, {name} {shape}"
    return ""


def _rebuilds(model: nn.Module, graph: Graph, attribute: str) -> bool:
    """Whether the class, built from the model's config and given its weights, computes what the
    model does.

    Both get made-up weights of a usual size, as near zero anything attends to all alike, and run in
    float64 where they can, as there nothing but rounding is small. On the meta device there are no
    weights: then the same operators must be called on the same shapes with the same numbers.
    """
    if any(tensor.is_meta for tensor in graph.state.values()):
        again = _again(model, attribute, torch.device("meta"))
        return again is not None and _same_calls(model, again, graph.inputs)
    again = _again(model, attribute)
    if again is None:
        return False
    reference = next(model.parameters())
    telling = with_telling_weights(model)
    try:
        again.to(reference.device, reference.dtype).load_state_dict(telling.state_dict())
    except RuntimeError:
        return False  # its tensors have other names or shapes
    again.eval()
    inputs = telling_inputs(graph.inputs)
    exact = _gap(duplicate(telling).double(), duplicate(again).double(), _double(inputs))
    if exact is not None:
        return exact <= EXACT
    gap = _gap(telling, again, inputs)
    return gap is not None and gap <= tolerance(graph.inference.tape)


def _again(
    model: nn.Module, attribute: str, device: torch.device | None = None
) -> nn.Module | None:
    """Another model of the class, built from the config; None where it cannot be, or where the
    config itself refuses what it states (transformers' do when they are written and read).
    """
    config = copy.deepcopy(getattr(model, attribute))
    with preserved_rng(), device or nullcontext():
        try:
            getattr(config, "validate", lambda: None)()
            return type(model)(config)
        except Exception:
            return None  # a config that states what cannot be may raise anything


def _same_calls(model: nn.Module, again: nn.Module, inputs: Inputs) -> bool:
    try:
        return same_structure(record(model, inputs), record(again, inputs))
    except TraceError:
        return False


def _gap(model: nn.Module, again: nn.Module, inputs: Inputs) -> float | None:
    """How far the outputs of two models are from each other; None where either does not run."""
    try:
        outputs, others = _outputs(model, inputs), _outputs(again, inputs)
    except Exception:
        return None  # code that does not know float64, or sizes that do not fit, may raise anything
    if len(outputs) != len(others):
        return float("inf")
    pairs = zip(outputs, others, strict=True)
    return max((difference(one, other) for one, other in pairs), default=0.0)


def _double(inputs: Inputs) -> Inputs:
    return tree_map(  # type: ignore[no-any-return]  # the tree keeps its form
        lambda leaf: (
            leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        ),
        inputs,
    )


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with undisturbed(model):
        seed_all(0)
        return [tensor.clone() for tensor in tensors_in(call(model, copied(inputs)))]


def _builder(model: nn.Module) -> tuple[str, Shapes] | None:
    """The attribute that holds what the model was built from, and the shapes that its class builds
    from it.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for attribute, value in vars(model).items():
        if not attribute.startswith("_") and _is_settings(value) and _built(model, value) == shapes:
            return attribute, shapes
    return None


def _is_settings(value: Any) -> bool:
    plain = isinstance(value, (nn.Module, Tensor, type, torch.Generator)) or callable(value)
    return hasattr(value, "__dict__") and not plain


def _built(model: nn.Module, config: Any) -> Shapes:
    """The shapes of a model of this class built from a config; none where it cannot be."""
    try:
        with preserved_rng(), torch.device("meta"):
            built = type(model)(config)
    except Exception:
        return {}
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


def _solutions(
    model: nn.Module, attribute: str, was: Shapes, wanted: Shapes
) -> Iterator[dict[str, Size]]:
    """Sets of entries, with new values, that make the class build the wanted shapes.

    The same shapes may be had by other entries (half the heads, or heads of half the width): those
    follow, each with an entry or two more than a set that came before, or without one of its
    entries.
    """
    config = getattr(model, attribute)
    renamed = _renamed(was, wanted)
    options = [
        (path, size) for path, value in _entries(config) for size in _renewals(value, renamed)
    ]
    end = time.process_time() + SECONDS
    pending: list[frozenset[str]] = [frozenset()]
    for banned in pending:
        entries = _nearest(
            model, config, [option for option in options if option[0] not in banned], wanted, end
        )
        if entries:
            yield _under(attribute, entries)
            for more in _idle(model, config, options, entries, wanted, end):
                yield _under(attribute, {**entries, **more})
            pending += [banned | {path} for path in entries if banned | {path} not in pending]
        if time.process_time() > end:
            return


def _idle(
    model: nn.Module,
    config: Any,
    options: list[tuple[str, Size]],
    entries: dict[str, Size],
    wanted: Shapes,
    end: float,
) -> Iterator[dict[str, Size]]:
    """One or two more entries that leave the shapes as they are: heads and groups of heads, where
    their width follows.
    """
    rest = [option for option in options if option[0] not in entries]
    for chosen in (*combinations(rest, 1), *combinations(rest, 2)):
        more = dict(chosen)
        if len(more) < len(chosen) or time.process_time() > end:
            continue
        if _distance(_built(model, _with(config, {**entries, **more})), wanted) == 0:
            yield more


def _under(attribute: str, sizes: Mapping[str, Size]) -> dict[str, Size]:
    return {f"{attribute}.{path}": size for path, size in sizes.items()}


def _renamed(was: Shapes, wanted: Shapes) -> dict[int, set[int]]:
    """Size → what it may have become: of an axis, or of a number of equal parts of it that keep
    their width (heads).
    """
    renamed: dict[int, set[int]] = defaultdict(set)
    for name, shape in wanted.items():
        for old, new in zip(was[name], shape, strict=True):
            if old != new:
                renamed[old].add(new)
                for parts in range(2, old):
                    if old % parts == 0 and parts * new % old == 0 and new:
                        renamed[parts].add(parts * new // old)
    return renamed


def _nearest(
    model: nn.Module, config: Any, options: list[tuple[str, Size]], wanted: Shapes, end: float
) -> dict[str, Size] | None:
    """Entries that bring the shapes nearer, the best one first, until all shapes are met."""
    changed: dict[str, Size] = {}
    missing = _distance(_built(model, config), wanted)
    while missing:
        best: tuple[int, str, Size] | None = None
        for path, size in options:
            if path in changed or time.process_time() > end:
                continue
            distance = _distance(_built(model, _with(config, {**changed, path: size})), wanted)
            if distance < (best[0] if best else missing):
                best = (distance, path, size)
        if best is None:
            return None
        missing, path, size = best
        changed[path] = size
    return changed


def _entries(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in vars(config).items():
        if name.startswith("_"):
            continue
        if type(value) is int or (
            type(value) in (list, tuple) and value and all(type(item) is int for item in value)
        ):
            yield f"{prefix}{name}", value
        elif _is_settings(value) and not prefix:
            yield from _entries(value, f"{name}.")


def _renewals(value: Any, renamed: Mapping[int, set[int]]) -> Iterator[Size]:
    if type(value) is int:
        yield from sorted(renamed.get(value, ()), reverse=True)
    elif all(len(renamed.get(item, ())) < 2 for item in value) and any(
        item in renamed for item in value
    ):
        yield tuple(next(iter(renamed.get(item, (item,)))) for item in value)


def _with(config: Any, changes: Mapping[str, Size]) -> Any:
    config = copy.deepcopy(config)
    for path, size in changes.items():
        owner = config
        *way, name = path.split(".")
        for step in way:
            owner = getattr(owner, step)
        setattr(owner, name, list(size) if isinstance(getattr(owner, name), list) else size)  # type: ignore[arg-type]  # of several
    return config


def _distance(shapes: Shapes, wanted: Shapes) -> int:
    """How many tensors are missing, too many, or of another shape, and how many of their axes
    differ.
    """
    total = 10**6 * len(shapes.keys() ^ wanted.keys())
    for name in shapes.keys() & wanted.keys():
        if len(shapes[name]) != len(wanted[name]):
            total += 10
        else:
            total += sum(a != b for a, b in zip(shapes[name], wanted[name], strict=True))
    return total
