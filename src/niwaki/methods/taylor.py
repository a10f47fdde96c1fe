"""What the loss would change by, to first order, if a unit were gone.

Sources: Molchanov, Mallya, Tyree, Frosio, Kautz, Importance Estimation for Neural Network Pruning,
CVPR 2019, arXiv 1906.10771, eq. 8 and section 3.1 (`taylor`: gradient times weight, summed over a
filter, squared); Molchanov, Tyree, Karras, Aila, Kautz, Pruning Convolutional Neural Networks for
Resource Efficient Inference, ICLR 2017, arXiv 1611.06440, section 2.2 (`taylor-activation`:
gradient times activation).

Example: a unit with the weights (3, 4), whose gradients are (1, -1/2), changes the loss by about
3·1 - 4·1/2 = 1 when it goes; its `taylor` score is 1² = 1, though the entries alone (3² + 2²) would
have said 13.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from niwaki.core.errors import NiwakiError, SettingError
from niwaki.graph import Group
from niwaki.methods._gradients import (
    Replay,
    gradients,
    inserted,
    losses,
    replays,
    spread,
    unit_sums,
)
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.running import Op


@dataclass(frozen=True)
class Differentiated(Criterion):
    """A criterion that needs gradients of a loss on calibration inputs: with their class numbers
    where there are some, else with classes that the network itself says.

    Attributes:
        batches: so many at most.
    """

    comparable: ClassVar[bool] = True

    batches: int = 64

    def __post_init__(self) -> None:
        if self.batches < 1:
            raise SettingError(f"batches must be at least 1; got {self.batches}")

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self.scores(evidence)[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name; zeros, and a remark, where there are no gradients."""
        try:
            return self._scores(evidence)
        except RuntimeError as error:
            reason = no_derivative(error)
            if reason is None:
                raise
            evidence.say(
                f"all units count alike, as the network cannot be differentiated: {reason}"
            )
            groups = evidence.graph.groups
            return {
                group.name: torch.zeros(group.width, dtype=torch.float64, device="cpu")
                for group in groups
            }

    @abstractmethod
    def _scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""


def no_derivative(error: RuntimeError) -> str | None:
    """The first line of an error that says that something has no derivative; None of others."""
    text = str(error)
    about = any(word in text for word in ("derivative", "differentia", "require grad"))
    return text.splitlines()[0] if about and not isinstance(error, NiwakiError) else None


@CRITERIA.register("taylor")
@dataclass(frozen=True)
class Taylor(Differentiated):
    """(Σ g·w)² over all that computes a unit (weights and bias), g the gradient of a batch's mean
    loss; the mean over batches.
    """

    def _scores(self, evidence: Evidence) -> dict[str, Tensor]:
        groups = evidence.graph.groups
        totals = {
            group.name: torch.zeros(group.width, dtype=torch.float64, device="cpu")
            for group in groups
        }
        number = 0
        for replay in replays(evidence, "taylor", self.batches):
            number += 1
            with replay.tracking():
                errors = losses(replay, replay.outputs(), evidence.generator)
                slopes = gradients(errors.mean(), replay.parameters)
            table = _products(slopes, replay.parameters)
            for group in groups:
                totals[group.name] += unit_sums(group, table).square()
        return {name: total / max(1, number) for name, total in totals.items()}


@CRITERIA.register("taylor-activation")
@dataclass(frozen=True)
class TaylorActivation(Differentiated):
    """|Σ x·∂L/∂x| / M over the M places where a unit is read, the mean over samples; divided by the
    Euclidean norm of its group's scores, as the paper does before it compares layers.

    The sum is the gradient with respect to a factor of one on the unit, so that it counts whatever
    the unit's readers are; a sample counts by its own sign.
    """

    def _scores(self, evidence: Evidence) -> dict[str, Tensor]:
        groups = evidence.graph.groups
        totals = {
            group.name: torch.zeros(group.width, dtype=torch.float64, device="cpu")
            for group in groups
        }
        samples = 0
        for replay in replays(evidence, "taylor-activation", self.batches):
            samples += replay.size
            for name, slope in _factor_slopes(evidence, replay).items():
                totals[name] += slope.double().cpu().abs().sum(0)
        means = {name: total / max(1, samples) for name, total in totals.items()}
        return {name: mean / mean.norm().clamp(min=1e-300) for name, mean in means.items()}


def _products(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * second[name].detach() for name, tensor in first.items()}


def _factor_slopes(evidence: Evidence, replay: Replay) -> dict[str, Tensor]:
    """∂L/∂f at f = 1 of a factor a sample and unit, over the number of its places: group → (n,
    width).
    """
    graph = evidence.graph
    parameter = next(iter(replay.parameters.values()))
    factors = {
        group.name: parameter.new_ones(replay.size, group.width, requires_grad=True)
        for group in graph.groups
    }
    at, places = inserted(graph, list(factors)), dict.fromkeys(factors, 1)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = list(args)
        for name, read, units in at.get(position, ()):
            operand: Tensor = changed[read.slot]
            changed[read.slot] = operand * spread(factors[name], operand, read, units, 1.0)
            per_index = operand.numel() // (operand.shape[read.axis] * replay.size)
            places[name] = max(1, per_index * int((units >= 0).sum()) // factors[name].shape[1])
        return op.func(*changed, **kwargs)

    with replay.tracking():
        errors = losses(replay, replay.outputs(step), evidence.generator)
        slopes = gradients(errors.sum(), factors)
    return {name: slope / places[name] for name, slope in slopes.items()}
