"""Optimal brain damage: what the loss would change by, to second order, with the Hessian's diagonal
alone.

With h the diagonal of the Hessian, a unit's saliency is ½ Σ h·w² over its weights. Sources: LeCun,
Denker, Solla, Optimal Brain Damage, NeurIPS 1989 (the saliency). `fisher`: the mean squared
gradient in the place of h, as in Theis, Korshunova, Tejani, Huszár, Faster Gaze Prediction with
Dense Networks and Fisher Pruning, 2018, arXiv 1801.05787. `hessian`: h itself, by the
estimate of Hutchinson as in Yao et al., ADAHESSIAN, AAAI 2021, arXiv 2006.00719: the mean of
z·(H·z) over random signs z.

Example: L = w₁² + 3·w₁·w₂ + 5·w₂² at w = (2, 1). H has the rows (2, 3) and (3, 10), and for the
signs z = (1, -1) z·(H·z) = (-1, 7); with the other signs (5, 13), so that the mean is h = (2, 10);
½·h·w² = (4, 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.methods._gradients import Replay, gradients, losses, replays, unit_sums
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.taylor import Differentiated, no_derivative

Curvature = Callable[[Replay, Tensor, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Damage(Differentiated):
    """½ Σ h·w² over all that computes a unit.

    Attributes:
        draws: of random signs, for every batch.
    """

    draws: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise SettingError(f"draws must be at least 1; got {self.draws}")

    def _saliencies(self, evidence: Evidence, who: str, curvature: Curvature) -> dict[str, Tensor]:
        groups = evidence.graph.groups
        totals = {
            group.name: torch.zeros(group.width, dtype=torch.float64, device="cpu")
            for group in groups
        }
        samples = 0
        for replay in replays(evidence, who, self.batches):
            with replay.tracking():
                errors = losses(replay, replay.outputs(), evidence.generator)
                table = curvature(replay, errors, evidence.generator)
            samples += len(errors)
            for group in groups:
                totals[group.name] += unit_sums(group, table) / 2
        return {name: total / max(1, samples) for name, total in totals.items()}


@CRITERIA.register("fisher")
@dataclass(frozen=True)
class Fisher(Damage):
    """½ Σ F·w², F the mean over samples of the squared gradient.

    A batch's squared gradients come out of one backward pass, as the square of the gradient of
    Σ ±L: over the signs, the samples' products with one another have mean zero. A batch of one
    sample is exact.
    """

    def _scores(self, evidence: Evidence) -> dict[str, Tensor]:
        return self._saliencies(evidence, "fisher", self._squares)

    def _squares(
        self, replay: Replay, errors: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        draws = self.draws if len(errors) > 1 else 1
        total = {name: torch.zeros_like(leaf) for name, leaf in replay.parameters.items()}
        for _ in range(draws):
            goal = (errors * _signs(errors, generator)).sum()
            slopes = gradients(goal, replay.parameters, retain_graph=True)
            for name, slope in slopes.items():
                total[name] += (slope * replay.state[name].detach()).square() / draws
        return total


@CRITERIA.register("hessian")
@dataclass(frozen=True)
class Hessian(Damage):
    """½ Σ h·w², h the Hessian's diagonal of the mean loss, by Hutchinson's estimate.

    A score below zero says that the loss falls when the unit goes. Where an operator has no second
    derivative, `fisher` stands in for all, and a remark says so.
    """

    def _scores(self, evidence: Evidence) -> dict[str, Tensor]:
        try:
            return self._saliencies(evidence, "hessian", self._curved)
        except RuntimeError as error:
            reason = no_derivative(error)
            if reason is None:
                raise
            evidence.say(f"hessian: squared gradients (fisher) in its place, as {reason}")
            return Fisher(self.batches, self.draws).scores(evidence)

    def _curved(
        self, replay: Replay, errors: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        leaves = replay.parameters
        slopes = gradients(errors.sum(), leaves, create_graph=True)
        total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        for _ in range(self.draws):
            # signs times weights: z·(H·z)·w² without a division, also where a weight is zero
            ways = {name: _signs(leaf, generator) * leaf.detach() for name, leaf in leaves.items()}
            for name, value in _curvature_along(slopes, ways, leaves).items():
                total[name] += value / self.draws
        return total


def _curvature_along(
    slopes: Mapping[str, Tensor], ways: Mapping[str, Tensor], leaves: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """v·(H·v) entry by entry, for a direction v."""
    goal = torch.stack([(slopes[name] * way).sum() for name, way in ways.items()]).sum()
    if not goal.requires_grad:  # the loss is linear
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    turned = gradients(goal, leaves, retain_graph=True)
    return {name: ways[name] * turned[name] for name in leaves}


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """+1 or -1 at random; +1 for a single number, whose sign does not matter."""
    if like.numel() == 1:
        return torch.ones_like(like)
    drawn = torch.randint(0, 2, like.shape, generator=generator, device="cpu")
    return (2 * drawn - 1).to(like)
