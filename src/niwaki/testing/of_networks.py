"""What a network must allow for, so that it can be pruned."""

from __future__ import annotations

from torch import nn

from niwaki.core.errors import SurgeryError
from niwaki.core.inputs import Inputs
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group, trace
from niwaki.methods.base import Cut
from niwaki.proof import check
from niwaki.surgery import shrink, size_guesses
from niwaki.testing.untouched import untouched


def check_trace(model: nn.Module, example_inputs: Inputs) -> dict[str, str]:
    """Try every group of a network by itself: a third of its units goes, and the smaller network
    must compute what the masked original computes, on the example inputs and on every probe.

    Args:
        model: any module.
        example_inputs: as of `niwaki.prune`.

    Returns:
        group → "proved", or why it cannot be cut.

    Raises:
        AssertionError: nothing of the network can be cut, or the model was changed.
        TraceError: it cannot be run on these inputs.

    Example:
        >>> import torch
        >>> check_trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)),
        ...             torch.randn(3, 4))
        {'0': 'proved'}
    """
    with untouched(model):
        graph = trace(model, example_inputs)
        outcomes = {group.name: _alone(graph, group) for group in graph.groups if group.width > 1}
    if "proved" not in outcomes.values():
        reasons = [f"{name}: {why}" for name, why in outcomes.items()]
        frozen = [f"{item.layer}: {item.reason}" for item in graph.frozen]
        raise AssertionError(
            "nothing of this network can be cut; " + "; ".join((reasons or frozen)[:5])
        )
    return outcomes


def _alone(graph: Graph, group: Group) -> str:
    """What comes of a cut of one group: every third unit, beginning with the second."""
    units = tuple(unit for unit in range(group.width) if unit % 3 != 1)
    plan = Plan({group.name: Kept(group.width, units)})
    why = "its sizes cannot be told"
    for sizes in size_guesses(graph, plan):
        cut = Cut(graph, Plan(plan.units, sizes))
        try:
            check(cut, shrink(cut))
        except SurgeryError as error:
            why = str(error)
        else:
            return "proved"
    return why
