"""What the user can do about channels that keep their size: one sentence for each cause that a
change of the model removes.
"""

from __future__ import annotations

from collections.abc import Iterator

from niwaki.graph.channel_graph import Graph
from niwaki.graph.terms import Var, leaves

_SHOWN = 3  # names in a sentence


def ways_out(graph: Graph) -> list[str]:
    """Sentences, none where nothing is known that would help."""
    ways = []
    state = sorted(set(_kept_tensors(graph)))
    if state:
        ways.append(
            f"the model keeps {_listed(state)} outside of its parameters and buffers, and the "
            "layers that meet what it keeps there keep their size: with register_buffer, it is cut "
            "with them"
        )
    layers = sorted(_parametrised(graph))
    if layers:
        ways.append(
            f"the weight of {_listed(layers)} is computed in a way that needs all of its channels: "
            "make it an ordinary weight first with torch.nn.utils.parametrize."
            "remove_parametrizations(layer, 'weight'), and parametrise the pruned layer again"
        )
    return ways


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _kept_tensors(graph: Graph) -> Iterator[str]:
    """Plain tensors among the attributes of modules that share an axis with a parameter."""
    axes = graph.inference.axes
    channels = {
        var
        for terms in graph.inference.parameters.values()
        for term in terms
        for var in leaves(term)
        if var.size > 1
    }
    for ref, name in graph.inference.tape.kept_tensors.items():
        if any(var in channels for term in axes.get(ref, ()) for var in leaves(term)):
            yield name


def _parametrised(graph: Graph) -> Iterator[str]:
    """Layers of which a parametrisation freezes channels."""
    layers = {
        name.partition(".parametrizations.")[0]
        for name, terms in graph.inference.parameters.items()
        if ".parametrizations." in f".{name}"
        and any(_by_parametrisation(var) for term in terms for var in leaves(term))
    }
    yield from layers


def _by_parametrisation(var: Var) -> bool:
    return var.frozen is not None and ".parametrizations." in var.frozen.detail
