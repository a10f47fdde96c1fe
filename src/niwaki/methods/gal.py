"""GAL: a network with soft masks learns to be taken for the one that it comes from, without labels.

The teacher is the trained network, frozen; the student (the generator) is a copy with a factor m
on every unit or branch. A discriminator D is shown the logits of both. At every step D learns to
tell them apart, and the student's weights take μ·MSE(f_t, f_s) + BCE(D(f_s), 1); the factors move
by FISTA with the weight λ of Σ|m| at every so many-th step. What ends at zero is taken out, and the
rest is fine-tuned. Source: Lin, Ji, Yan, Zhang, Cao, Ye, Huang, Doermann, Towards Optimal
Structured CNN Pruning via Generative Adversarial Learning, CVPR 2019, arXiv 1903.09291, section 3.

D's loss is BCE(D(f_t), 1) + BCE(D(f_s), 0) and, as its regulariser, BCE(D(f_s), 1). Here D gives
the logarithm of the odds, and BCE takes it as that; the authors' code puts a sigmoid before a BCE
that takes one itself.

Example: with equal logits and a D that gives 0, D's loss is 3·log 2 and the student's log 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from niwaki.core.errors import SettingError
from niwaki.graph import Graph
from niwaki.methods.factors._places import Over
from niwaki.methods.factors.proximal import Fista, LearningRate
from niwaki.methods.factors.scaled import Start, others, with_factors
from niwaki.running import preserved_mode, tensors_in


@dataclass(frozen=True, eq=False)
class GAL:
    """The method's settings; an objective of `niwaki.training.fit`.

    Example:
        >>> import niwaki, torch
        >>> from niwaki.training import TrainSettings, fit
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> x, labels = torch.randn(8, 4), torch.arange(8) % 2
        >>> graph, batches = niwaki.trace(model, x), [(x, labels)]
        >>> method = GAL(teacher=model, reg=0.6)
        >>> student = method.prepare(graph)
        >>> history = fit(
        ...     student, lambda epoch: batches, settings=TrainSettings(epochs=1, lr=0.01),
        ...     progress=False, distillation=method, after_step=method.after_step(lr=0.01),
        ...     parameter_groups=[{"params": method.weights(student)}],
        ... )

    Attributes:
        teacher: the trained network; it is run in evaluation mode and never changed.
        over: "units" or "branches".
        reg: λ; likeness: μ.
        every: factors move at every so many-th step.
        start: "normal" as in the paper, or "ones".
        lr: of the discriminator's gradient descent.
        seed: of the factors and of the discriminator's weights.
    """

    teacher: nn.Module
    over: Over = "units"
    reg: float = 1e-3
    likeness: float = 1.0
    every: int = 200
    start: Start = "normal"
    lr: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "reg must be 0 or more": 0 <= self.reg < math.inf,
            "likeness must be 0 or more": 0 <= self.likeness < math.inf,
            "every must be 1 or more": self.every >= 1,
            "lr must be above 0": 0 < self.lr < math.inf,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")

    def __str__(self) -> str:
        return (
            f"GAL of {type(self.teacher).__name__}, over={self.over}, reg={self.reg:g}, "
            f"likeness={self.likeness:g}, every={self.every}, lr={self.lr:g}, seed={self.seed}"
        )

    def prepare(self, graph: Graph) -> nn.Module:
        """The student: a copy of the teacher's network with factors."""
        return with_factors(graph, self.over, start=self.start, seed=self.seed)

    def weights(self, student: nn.Module) -> list[nn.Parameter]:
        """What the optimiser moves: all but the factors."""
        return others(student)

    def after_step(self, lr: LearningRate) -> Fista:
        """What moves the factors, after every step of the optimiser."""
        return Fista(self.reg, lr, every=self.every, signed=True)

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[Game]:
        """Teacher and discriminator at work, until the block ends."""
        with preserved_mode(self.teacher, training=False):
            yield Game(self)


@dataclass(eq=False)
class Game:
    """Teacher, student and discriminator, from the first step on.

    Attributes:
        losses: the discriminator's loss, step by step.
    """

    method: GAL
    discriminator: nn.Sequential | None = None
    losses: list[float] = field(default_factory=list)

    def loss(self, inputs: Tensor, logits: Tensor, cross_entropy: Tensor) -> Tensor:
        """One step of the discriminator, and then the student's loss; labels play no part."""
        with torch.no_grad():
            wanted = next(tensors_in(self.method.teacher(inputs)))
        if wanted.shape != logits.shape:
            raise SettingError(
                f"the teacher gives {tuple(wanted.shape)} and the student {tuple(logits.shape)}"
            )
        judge = self._judge(logits)
        self.losses.append(self._taught(judge, wanted, logits.detach()))
        for parameter in judge.parameters():
            parameter.requires_grad_(False)  # the student's step is not the discriminator's
        error = self.method.likeness * F.mse_loss(logits, wanted)
        return error + _as(judge(logits), 1)

    def _taught(self, judge: nn.Sequential, wanted: Tensor, answered: Tensor) -> float:
        """One step of gradient descent on the discriminator's loss."""
        for parameter in judge.parameters():
            parameter.requires_grad_(True)
        loss = discriminator_loss(judge, wanted, answered)
        slopes = torch.autograd.grad(loss, list(judge.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(judge.parameters(), slopes, strict=True):
                parameter.sub_(slope, alpha=self.method.lr)
        return float(loss.detach())

    def _judge(self, logits: Tensor) -> nn.Sequential:
        if self.discriminator is None:
            judge = discriminator(logits.shape[-1], self.method.seed)
            self.discriminator = judge.to(logits.device, logits.dtype)
        return self.discriminator


def discriminator(classes: int, seed: int) -> nn.Sequential:
    """Logits → the logarithm of the odds that they are the teacher's: classes → 128 → 256 → 128 → 1
    with no function between, weights from N(0, 0.01²), biases of 0.
    """
    generator, widths = torch.Generator().manual_seed(seed), (classes, 128, 256, 128, 1)
    with torch.random.fork_rng(devices=[]):
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(
                0.01 * torch.randn(layer.weight.shape, generator=generator, device="cpu")
            )
            layer.bias.zero_()
    return nn.Sequential(*layers)


def discriminator_loss(judge: nn.Module, wanted: Tensor, answered: Tensor) -> Tensor:
    """BCE(D(f_t), 1) + BCE(D(f_s), 0) + BCE(D(f_s), 1)."""
    return _as(judge(wanted), 1) + _as(judge(answered), 0) + _as(judge(answered), 1)


def _as(odds: Tensor, answer: Literal[0, 1]) -> Tensor:
    """The binary cross-entropy with one answer for all."""
    return F.binary_cross_entropy_with_logits(odds, torch.full_like(odds, answer))
