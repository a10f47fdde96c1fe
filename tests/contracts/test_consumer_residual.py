"""Least squares, and guarded moves, never leave consumers with more error than plain pruning,
whatever is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zoo

import niwaki
from niwaki.graph import Masked
from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import consumer_gram, readers
from niwaki.methods.reconstruction.least_squares import Joint, residual
from niwaki.running import Playback

pytestmark = pytest.mark.usefixtures("one_thread")

LOW_PRECISION = {"Float16", "Bfloat16"}
MODELS = [name for name in zoo.MODELS if name not in LOW_PRECISION]
CRITERIA = ("l1", "random", "reconstruct", "fold")
COUNTED = (  # by the calibration inputs, in the original
    "reconstruct:places=1000000,order=parallel",
    "merge:guard=true",
    "match:guard=true,threshold=-1",
    "fold:guard=true",
)
DERIVED = ("moments", "merge:guard=true", "fold:guard=true")  # by the weights


def traced(name: str) -> tuple[niwaki.Graph, list[Any], list[str]]:
    """A model of the zoo, two batches of inputs, and the groups that can be repaired."""
    model = zoo.build(name, torch.float64)
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    free = [
        group.name
        for group in graph.groups
        if group.fold_obstacle is None and readers(graph, [group.name])
    ]
    return graph, [zoo.inputs(model, seed) for seed in (3, 4)], free


def plans(
    graph: niwaki.Graph, inputs: list[Any], names: list[str]
) -> Iterator[tuple[str, str, niwaki.Plan]]:
    """Half of each group, by one criterion after the other: each meets a quarter of the groups of
    the zoo, and thereby every repair.
    """
    first = MODELS.index(type(graph.model).__name__)
    chosen = {name: CRITERIA[(first + place) % len(CRITERIA)] for place, name in enumerate(names)}
    for criterion in dict.fromkeys(chosen.values()):
        scores = niwaki.score(
            graph, criterion, calibration=niwaki.Calibration.of(inputs), say=lambda _: None
        )
        for name in (name for name in names if chosen[name] == criterion):
            width = graph[name].width
            units = tuple(
                sorted(scores[name].argsort(descending=True)[: max(1, width // 2)].tolist())
            )
            yield criterion, name, niwaki.Plan({name: niwaki.core.plan.Kept(width, units)})


def no_worse(
    graph: niwaki.Graph,
    name: str,
    weight: str,
    joint: Joint,
    found: niwaki.Mixing,
    kept: tuple[int, ...],
) -> bool:
    gram, plain = (
        consumer_gram(graph, name, weight),
        niwaki.Mixing.selecting(graph[name].width, kept),
    )
    left, most = (residual(joint, mixing, kept, gram) for mixing in (found, plain))
    return left <= most * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("model", MODELS)
def test_by_the_moments_of_the_original_no_repair_is_worse_than_plain_pruning(model: str) -> None:
    graph, inputs, free = traced(model)
    calibration = niwaki.Calibration.of(inputs)
    counted = gather(niwaki.Evidence(graph, calibration), free, "the test")
    derived = derive(graph, free, Prior())
    told = [(method, calibration, counted) for method in COUNTED] + [
        (method, None, derived) for method in DERIVED
    ]
    for criterion, name, plan in plans(graph, inputs, free):
        units = plan.kept[name]
        for method, seen, known in told:
            found = niwaki.compensate(niwaki.Cut(graph, plan), method, calibration=seen).mixings
            mixing = found.get(name, niwaki.Mixing.selecting(graph[name].width, units))
            for weight, moments in known[name].items():
                joint = Joint.of_original(moments.mean, moments.covariance, units)
                assert no_worse(graph, name, weight, joint, mixing.at(weight), units), (
                    criterion,
                    method,
                    name,
                    weight,
                )


@pytest.mark.parametrize("model", MODELS)
def test_in_the_network_as_it_is_by_then_no_fit_is_worse_than_plain_pruning(model: str) -> None:
    """Layer by layer: what is read has changed already, by the fits before and by normalisations
    over the kept units.
    """
    graph, inputs, free = traced(model)
    for criterion, name, plan in plans(graph, inputs, free):
        units = plan.kept[name]
        calibration = niwaki.Calibration.of(inputs)
        found = niwaki.compensate(
            niwaki.Cut(graph, plan), "reconstruct:places=1000000", calibration=calibration
        ).mixings
        masked, done = Masked(graph, plan, found), set()
        for position, here in readers(graph, [name]).items():
            for reader in here:
                if reader.weight in done:
                    continue  # fitted where it reads first
                done.add(reader.weight)
                counted = Moments(reader.width + len(units))
                for batch in inputs:
                    original, smaller = (
                        Playback(graph.inference.tape, graph.state, batch) for _ in range(2)
                    )
                    original.until(position, lambda _, op, args, kwargs: op.func(*args, **kwargs))
                    smaller.until(position, masked.run)
                    x, z = (run.arguments()[0][reader.read.slot] for run in (original, smaller))
                    left, z = reader.rows(x).clone(), reader.rows(z, torch.tensor(units))
                    left[:, list(units)] -= z
                    counted.add(torch.cat([left, z], 1), "the test")
                joint = Joint.of_rows(counted.mean, counted.covariance, reader.width)
                mixing = found[name].at(reader.weight)
                assert no_worse(graph, name, reader.weight, joint, mixing, units), (
                    criterion,
                    name,
                    reader.weight,
                )
