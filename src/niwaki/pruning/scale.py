"""The scale of attention stays as it was trained where dimensions of heads go."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from niwaki.core.errors import SurgeryError
from niwaki.graph import Graph
from niwaki.graph.heads import of_heads
from niwaki.graph.terms import leaves
from niwaki.methods.base.cut import Cut
from niwaki.methods.heads import Number, with_trained_scale
from niwaki.proof import Counted, counted_numbers
from niwaki.proof.counted import NO_SLOT


def keeping_scale(cut: Cut, pruned: nn.Module) -> Cut:
    """The cut with queries that make up for what the smaller network divides its products by now;
    the same cut where that is as it was.

    Args:
        pruned: a network of this cut.

    Raises:
        SurgeryError: torch's attention divides by the root of a size that the cut changed, and the
            queries cannot make up for it; the groups are named.
    """
    graph, plan = cut.graph, cut.plan
    if not any(of_heads(graph, name) for name in plan.kept):
        return cut
    counted = counted_numbers(graph, plan, pruned)
    numbers = [Number(each.position, each.slot, each.before, each.after) for each in counted]
    scaled, settled = with_trained_scale(graph, plan, numbers, cut.settled)
    for each in counted:
        if each.slot == NO_SLOT and each.position not in settled:
            raise SurgeryError(
                f"{each}, which its queries' weights cannot make up for",
                each.layer,
                groups=_sized(graph, each),
            )
    return cut if scaled is graph else replace(cut, graph=scaled, settled=settled)


def _sized(graph: Graph, number: Counted) -> tuple[str, ...]:
    """The groups whose count an attention divides by the root of."""
    width = graph.inference.axes[graph.inference.tape.ops[number.position].first][-1]
    here = set(leaves(width))
    return tuple(name for name, var in graph.variables.items() if var in here)
