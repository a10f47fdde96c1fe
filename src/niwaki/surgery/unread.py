"""Integers that forward does not read, and that state a size all the same: `in_channels` of a block
whose branches are merged for deployment.

No run shows them, so each needs another reason to follow:

* it equals the size of an axis of a tensor that its module holds itself, and all such axes have
  become the same;
* it is called as a size of a layer of torch's inside is called (`in_channels`, `groups`), and is
  that size in all of them that have it;
* its name speaks of channels (`embed_dim`, `hidden_size`), and it is a size of layers inside, which
  have all become the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.running.layers import knows_sizes, sizes

Change = tuple[int, int]  # old and new size
_CHANNELS = re.compile(
    r"channels?|chs?|features?|dims?|width|hidden|(in)?planes|units|filters|neurons|embed(ding)?|"
    r"model|groups|heads"
)
_OTHERS = re.compile(
    r"kernel|patch|window|image|img|max|min|length|len|seq|axis|positions?|vocab|depth|layers|"
    r"stride|padding|steps?|seed|scale|temperature|limit|rate|ndim|epochs?"
)
_READ = re.compile(r"in|inputs?|inplanes")
_WRITTEN = re.compile(r"out|outputs?")


def layer_changes(
    graph: Graph, plan: Plan, roles: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Change]]:
    """Layer of torch's → size attribute → its value before and after; of layers that change.

    Args:
        roles: layer → sizes that no tensor shows ("groups"), after.
    """
    after = graph.shapes_after(plan.kept)
    changes = {}
    for name, layer in graph.model.named_modules():
        # of a parametrised layer, the weight is computed and no tensor of its own
        if knows_sizes(layer) and not hasattr(layer, "parametrizations"):
            twin = _of_shapes(layer, {own: after.get(f"{name}.{own}") for own in _tensors(layer)})
            new = sizes(twin, roles.get(name, {}))
            pairs = {key: (getattr(layer, key), size) for key, size in new.items()}
            if any(old != size for old, size in pairs.values()):
                changes[name] = {key: pair for key, pair in pairs.items() if type(pair[0]) is int}
    return changes


def _tensors(layer: nn.Module) -> list[str]:
    return [*layer._parameters, *layer._buffers]


def _of_shapes(layer: nn.Module, shapes: Mapping[str, tuple[int, ...] | None]) -> nn.Module:
    """The layer with tensors of other shapes, and no values in them."""
    twin = object.__new__(type(layer))  # not copy.copy: a class may forbid copies
    vars(twin).update(vars(layer))
    for table in ("_parameters", "_buffers"):
        own = vars(layer)[table]
        changed = {name: shapes[name] for name in own}
        vars(twin)[table] = {
            name: own[name] if shape is None else torch.empty(shape, device="meta")
            for name, shape in changed.items()
        }
    return twin


def named_size(attribute: str, value: int, inside: list[dict[str, Change]]) -> int | None:
    """The new value of an attribute that forward does not read, by its name; None for no reason.

    Args:
        inside: what changes of the layers inside its module.
    """
    known = [pairs[attribute] for pairs in inside if attribute in pairs]
    if known:
        return _agreed(value, known)
    words = attribute.lower().strip("_").split("_")

    def speaks_of(what: re.Pattern[str]) -> bool:
        return any(what.fullmatch(word) for word in words)

    reads, writes = speaks_of(_READ), speaks_of(_WRITTEN)
    if speaks_of(_OTHERS) or not (speaks_of(_CHANNELS) or reads or writes):
        return None
    pairs = [
        pair
        for table in inside
        for key, pair in table.items()
        if not (reads and key.startswith("out")) and not (writes and key.startswith("in"))
    ]
    return _agreed(value, pairs)


def _agreed(value: int, pairs: list[Change]) -> int | None:
    """What all sizes of this value have become, if they have become the same and another."""
    news = {new for old, new in pairs if old == value}
    return next(iter(news)) if len(news) == 1 and news != {value} else None
