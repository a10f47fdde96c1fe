"""The original and the pruned network, run in step on all calibration inputs, so that each layer
can be mended in its turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.places import Places
from niwaki.graph.products import products
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.lockstep import lockstep
from niwaki.running import (
    Playback,
    Tape,
    batch_size,
    named_state,
    plainly,
    restated,
    tensors_in,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class SideBySide:
    """Two stopped runs a batch, which hold the activations of the layer that they stand at.

    Layers that are called many times are stopped at once for all their calls.

    Attributes:
        state: the pruned network's tensors by name; what is written into them counts for all
            operators to come.
        inputs: how many inputs.
    """

    def __init__(self, evidence: Evidence, plan: Plan, model: nn.Module, who: str) -> None:
        self.graph, self.plan, self.model = evidence.graph, plan, model
        self.state = named_state(model)
        self.inputs = 0
        self._first: dict[int, int] = {}
        self._runs: list[tuple[Playback, Playback]] = []
        self._places: list[Places] = []
        self.order = lockstep(self.graph.inference.tape, _calls(self.graph))
        for layer, here in _calls(self.graph).items():
            if layer not in self.order.apart:
                first = min(self.order.place[position] for position in here)
                self._first.update(dict.fromkeys(here, first))
        tapes: dict[Any, tuple[Tape, Tape]] = {}
        for inputs, _ in evidence.batches(who):
            shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(inputs))
            if shapes not in tapes:
                known = self.graph.inference.tape
                tapes[shapes] = (
                    self.order.tape(restated(self.graph.model, known, inputs)),
                    self.order.tape(restated(model, known, inputs)),
                )
            original, pruned = tapes[shapes]
            self._runs.append(
                (Playback(original, self.graph.state, inputs), Playback(pruned, self.state, inputs))
            )
            self._places.append(Places.of(inputs, None))
            self.inputs += batch_size(inputs)

    @property
    def batches(self) -> int:
        """How many batches they come in."""
        return len(self._runs)

    def original(self, position: int) -> list[Arguments]:
        """What an operator of the original is given, batch by batch."""
        return [self._stopped(run, position) for run, _ in self._runs]

    def pruned(self, position: int) -> list[Arguments]:
        """What the same operator of the pruned network is given."""
        return [self._stopped(run, position) for _, run in self._runs]

    def _stopped(self, run: Playback, position: int) -> Arguments:
        """Before an operator, or before the calls of the same layer that come with it."""
        place = self.order.place[position]
        run.until(self._first.get(position, place), plainly)
        return run.arguments(place)

    def places(self, most: int) -> list[Places]:
        """Which places of a map are looked at, batch by batch."""
        return [dataclasses.replace(places, most=most) for places in self._places]

    def left(self, name: str, axis: int) -> Tensor:
        """Which indices of an axis of the original's tensor the pruned network still has: int64
        (left,).
        """
        indices = self.graph.kept_indices(self.plan.kept).get(name, {})
        return indices.get(axis, torch.arange(self.graph.state[name].shape[axis], device="cpu"))


def _calls(graph: Graph) -> dict[Hashable, tuple[int, ...]]:
    """Weight of a layer, or mean of a normalisation → positions of all its calls."""
    calls: dict[Hashable, tuple[int, ...]] = {
        product.weight: product.calls for product in products(graph)
    }
    for norm in graph.inference.norms:
        calls[norm.mean] = (*calls.get(norm.mean, ()), norm.position)
    return calls
