"""Proximal steps: a gradient step, and then as near to it as the penalty lets one be. They give
exact zeros.

With S_t(x) = sign(x)·max(0, |x| - t), the proximal map of t·|x|, and ‖·‖ the norm of a group w,
max(0, 1 - t/‖w‖)·w is that of t·‖w‖.

Sources: `AcceleratedProximalGradient`: Huang, Wang, Data-Driven Sparse Structure Selection for Deep
Neural Networks, ECCV 2018, arXiv 1707.01213, eq. 10-12. `Fista`: Beck, Teboulle, A Fast Iterative
Shrinkage-Thresholding Algorithm, SIAM J. Imaging Sciences 2009, eq. 4.1-4.3, as Lin et al., Towards
Optimal Structured CNN Pruning via Generative Adversarial Learning, CVPR 2019, arXiv 1903.09291 take
it over a network's masks.

Example: S_1(3, -0.5) = (2, 0). The group (3, 4) at t = 1 becomes (1 - 1/5)·(3, 4) = (2.4, 3.2); at
t = 5 and above it is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.methods.factors.scaled import factors_of

LearningRate = float | Callable[[int], float]  # a number, or one for every step (from 0)


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """sign(x)·max(0, |x| - amount), number by number."""
    return values.sign() * (values.abs() - amount).clamp(min=0)


def block_soft_threshold(rows: Tensor, amount: float) -> Tensor:
    """max(0, 1 - amount/‖row‖)·row, row by row (n, entries)."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    tiny = torch.finfo(rows.dtype).tiny  # a group of zeros stays zero
    shares: Tensor = (norms - amount).clamp(min=0) / norms.clamp(min=tiny)
    return rows * shares


@dataclass(eq=False)
class Proximal:
    """Moves the factors of a network after every step of its other weights: an `after_step` of
    `niwaki.training.fit`, whose optimiser must not hold them (`others`).

    What it remembers lives as long as the object: a run that is resumed begins with a new one.

    Attributes:
        reg: the weight of Σ|f| in the loss.
        lr: of the factors; a function of the step where that of the weights falls, or the factors
            go on shrinking when the weights stand still: `lambda step: learning_rate(settings, step
            / steps)`.
        steps: how many were made.
    """

    reg: float
    lr: LearningRate = 0.1
    steps: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.reg < math.inf:
            raise SettingError(f"reg must be a number of at least 0; got {self.reg}")
        if not callable(self.lr) and not 0 < self.lr < math.inf:
            raise SettingError(f"lr must be above 0; got {self.lr}")

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """One step by the gradients that the factors have; these are then cleared.

        Raises:
            SettingError: the model has no factors.
        """
        factors = factors_of(model)
        if not factors:
            raise SettingError("the model has no factors; make it with niwaki's with_factors first")
        rate = self.lr(self.steps) if callable(self.lr) else self.lr
        self.steps += 1
        self._begin()
        for name, factor in factors.items():
            if factor.grad is not None:
                self._move(name, factor, factor.grad, rate)
                factor.grad = None

    def _begin(self) -> None:
        """What is done once a step, for all factors."""

    def _move(self, name: str, factor: Tensor, slope: Tensor, rate: float) -> None:
        """Plain proximal gradient: f = max(0, S(f - lr·g))."""
        factor.copy_(soft_threshold(factor - rate * slope, rate * self.reg).clamp(min=0))


@dataclass(eq=False)
class AcceleratedProximalGradient(Proximal):
    """z = S(f - lr·g); v = z - f + momentum·v; f = max(0, z + momentum·v)."""

    momentum: float = 0.9
    velocity: dict[str, Tensor] = field(default_factory=dict)

    def _move(self, name: str, factor: Tensor, slope: Tensor, rate: float) -> None:
        ahead = soft_threshold(factor - rate * slope, rate * self.reg)
        before = self.velocity.get(name, torch.zeros_like(factor))
        self.velocity[name] = ahead - factor + self.momentum * before
        factor.copy_((ahead + self.momentum * self.velocity[name]).clamp(min=0))


@dataclass(eq=False)
class Fista(Proximal):
    """a' = (1 + √(1 + 4a²))/2; y = f + (a - 1)/a'·(f - f_before); f = max(0, S(y - lr·g)).

    Attributes:
        every: factors move at every so many-th step, by the gradient of that step alone.
        signed: whether g includes reg·sign(f) too, as the code of GAL has it.
    """

    every: int = 1
    signed: bool = False
    momentum: float = 1.0  # a
    before: dict[str, Tensor] = field(default_factory=dict)

    def restart(self) -> None:
        """Begin anew with no momentum, as after a drop of the learning rate."""
        self.momentum = 1.0
        self.before.clear()

    def _begin(self) -> None:
        self._last = self.momentum
        if self.steps % self.every == 0:
            self.momentum = (1 + math.sqrt(1 + 4 * self.momentum**2)) / 2

    def _move(self, name: str, factor: Tensor, slope: Tensor, rate: float) -> None:
        if self.steps % self.every:
            return
        pull = slope + self.reg * factor.sign() if self.signed else slope
        ahead = factor + (self._last - 1) / self.momentum * (factor - self.before.get(name, factor))
        self.before[name] = factor.clone()
        factor.copy_(soft_threshold(ahead - rate * pull, rate * self.reg).clamp(min=0))
