"""Whole residual branches out of a network: layers that pass their input on, or give zeros, stand
in the place of what computed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from niwaki.core.plan import StandIn
from niwaki.graph import Branch, Graph
from niwaki.surgery.nothing import Nothing

LAYERS: Mapping[StandIn, type[nn.Module]] = {"identity": nn.Identity, "nothing": Nothing}


def stand_ins(graph: Graph, branch: Branch) -> Iterator[dict[str, StandIn]]:
    """Ways to take a branch out of a network, the better one first: layer → what stands there.

    The block around it becomes an identity, where the branch is all that the block adds; or the
    parts that run for this branch alone pass their input on, and the last of them gives zeros.
    """
    if branch.name == branch.block:
        yield {branch.block: "identity"}
    parts = _parts(graph, branch)
    if parts:
        yield {**dict.fromkeys(parts[:-1], "identity"), parts[-1]: "nothing"}


def put_stand_ins(model: nn.Module, layers: Mapping[str, StandIn]) -> None:
    """Put what stands in the place of layers into a model, in place; what it replaces is gone."""
    for name, kind in layers.items():
        model.set_submodule(name, LAYERS[kind]().train(model.get_submodule(name).training))


def _parts(graph: Graph, branch: Branch) -> list[str]:
    """The direct parts of the block that run for this branch alone, in the order of their first
    operators.
    """
    prefix = f"{branch.block}." if branch.block else ""
    inside, outside = dict[str, None](), set[str]()
    members = set(branch.operators)
    for position, op in enumerate(graph.inference.tape.ops):
        if op.layer.startswith(prefix) and op.layer != branch.block:
            part = prefix + op.layer.removeprefix(prefix).split(".")[0]
            if position in members:
                inside[part] = None
            else:
                outside.add(part)
    return [part for part in inside if part not in outside]
