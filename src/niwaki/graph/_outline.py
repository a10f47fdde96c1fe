"""A graph as plain data: what each group costs, who reads whom, what is fixed and why."""

from __future__ import annotations

from collections import defaultdict

from niwaki.core.records import FixedAxis, GroupOutline, Outline
from niwaki.graph._ways_out import ways_out
from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Group, Role
from niwaki.graph.groups import layer_of


def outline(graph: Graph) -> Outline:
    """Gather what is to be said of a graph."""
    params, macs = graph.count_params(), graph.count_macs()
    produced = defaultdict(list)
    for group in graph.groups:
        for layer in _layers(group, Role.PRODUCER):
            produced[layer].append(group.name)
    reads: dict[str, dict[str, None]] = defaultdict(dict)
    for group in graph.groups:
        for layer in _layers(group, Role.CONSUMER):
            for name in produced[layer]:
                if name != group.name:
                    reads[name][group.name] = None
    groups = tuple(
        GroupOutline(
            group.name,
            group.width,
            params - graph.count_params({group.name: 0}),
            macs - graph.count_macs({group.name: 0}),
            _layers(group, Role.PRODUCER),
            _layers(group, Role.CARRIER),
            _layers(group, Role.CONSUMER),
            tuple(reads[group.name]),
        )
        for group in graph.groups
    )
    return Outline(
        type(graph.model).__name__,
        params,
        macs,
        groups,
        tuple(FixedAxis(item.layer, item.width, str(item.reason)) for item in graph.frozen),
        dict(graph.unknown),
        graph.unread,
        tuple(ways_out(graph)),
    )


def _layers(group: Group, role: Role) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer_of(piece.tensor) for piece in group.of_role(role)))
