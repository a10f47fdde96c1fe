"""OED: copies of a network with soft masks teach one another, in one training run.

From the abstract: a soft mask scales the output of each block, an ℓ1 penalty on it is solved by
FISTA, and blocks whose mask is zero leave; the teacher is made online, by an ensemble of copies of
the network whose features are put together, and copies and teacher learn from each other. There is
no fine-tuning. Source: Wang, Lin, Xie, Lin, Pruning Blocks for CNN Compression and Acceleration via
Online Ensemble Distillation, IEEE Access 7, 2019, doi 10.1109/ACCESS.2019.2957203.

The paper's text was not to be had, so these are guesses: the number of copies (2), that copies
start with the same weights and masks drawn apart (N(0, 1), as of `GAL`), that the teacher is one
linear layer on what the copies' last layers read, side by side, and the losses. With T the
temperature, f_i the copies' logits, and t the teacher's:

    CE(t, y) + Σ_i [CE(f_i, y) + T²·KL(t ‖ f_i)] + Σ_i T²·KL(f_i ‖ t) + λ·Σ_i Σ|m_i|

where the first argument of KL is taken as given, and λ belongs to FISTA.

Example: with logits all zero, two copies and ten classes, every KL is 0 and the loss is 3·log 10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from niwaki.core.errors import SettingError
from niwaki.graph import Graph
from niwaki.methods.factors._places import Over
from niwaki.methods.factors.proximal import Fista, LearningRate
from niwaki.methods.factors.scaled import factors_of, others, with_factors
from niwaki.methods.nisp import last_reads
from niwaki.running import tensors_in


@dataclass(frozen=True)
class OED:
    """The method's settings; an objective of `niwaki.training.fit` for the ensemble that it makes.

    Attributes:
        over: "branches" or "units".
        reg: λ.
        copies: of the network.
        temperature: T.
        seed: of the masks and of the teacher's layer.
    """

    over: Over = "branches"
    reg: float = 0.04
    copies: int = 2
    temperature: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "reg must be 0 or more": 0 <= self.reg < math.inf,
            "copies must be 2 or more": self.copies >= 2,
            "temperature must be above 0": 0 < self.temperature < math.inf,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")

    def prepare(self, graph: Graph) -> Ensemble:
        """Copies of the network, each with masks of its own, and their teacher."""
        copies = [
            with_factors(graph, self.over, start="normal", seed=self.seed + number)
            for number in range(self.copies)
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Ensemble(copies, graph)

    def weights(self, ensemble: Ensemble) -> list[nn.Parameter]:
        """What the optimiser moves: all but the masks."""
        weights = [weight for copy in ensemble.copies for weight in others(copy)]
        return [*weights, *ensemble.teacher.parameters()]

    def after_step(self, lr: LearningRate) -> EnsembleStep:
        """What moves the masks, after every step of the optimiser."""
        return EnsembleStep(tuple(Fista(self.reg, lr) for _ in range(self.copies)))

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[Lesson]:
        """Copies and teacher at work on each other, until the block ends.

        Raises:
            SettingError: the network is not an ensemble that `prepare` made.
        """
        if not isinstance(student, Ensemble):
            raise SettingError("OED trains the ensemble that OED(…).prepare(graph) makes")
        yield Lesson(self, student)


class Ensemble(nn.Module):
    """Copies of a network, and a linear layer on what their last layers read.

    It gives, as logits, the sum of all members' log-probabilities: their joint answer.
    """

    def __init__(self, copies: list[nn.Module], graph: Graph) -> None:
        super().__init__()
        read, tape = last_reads(graph)[0], graph.inference.tape
        classes = tape.shapes[tape.outputs[0].index][-1]
        self.last, self.copies = tape.ops[read.position].layer, nn.ModuleList(copies)
        like = next(copies[0].parameters())
        self.teacher = nn.Linear(read.whole.size * len(copies), classes).to(like.device, like.dtype)
        self.said: list[Tensor] = []  # the copies' logits and then the teacher's

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """(batch, classes)."""
        answers, features = zip(
            *(self._run(copy, args, kwargs) for copy in self.copies), strict=True
        )
        self.said = [*answers, self.teacher(torch.cat(features, 1))]
        return torch.stack([F.log_softmax(logits, 1) for logits in self.said]).sum(0)

    def _run(self, copy: nn.Module, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
        """A copy's logits, and what its last layer read."""
        seen: list[Tensor] = []
        handle = copy.get_submodule(self.last).register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0])
        )
        try:
            logits = next(tensors_in(copy(*args, **kwargs)))
        finally:
            handle.remove()
        return logits, seen[-1]

    def best(self) -> nn.Module:
        """The copy with the fewest masks that are not zero."""
        left = [
            sum(int((mask != 0).sum()) for mask in factors_of(copy).values())
            for copy in self.copies
        ]
        return self.copies[left.index(min(left))]


@dataclass(frozen=True, eq=False)
class EnsembleStep:
    """One FISTA a copy."""

    steps: tuple[Fista, ...]

    def __call__(self, ensemble: nn.Module) -> None:
        """Move all masks."""
        copies: Any = ensemble.copies
        for step, copy in zip(self.steps, copies, strict=True):
            step(copy)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The ensemble's losses, step by step."""

    method: OED
    ensemble: Ensemble

    def loss(self, inputs: Tensor, logits: Tensor, cross_entropy: Tensor) -> Tensor:
        """All cross-entropies and divergences of the last forward pass."""
        *copies, teacher = self.ensemble.said
        self.ensemble.said = []
        # of unnormalised scores z, cross-entropy is -z_y + log Σ exp z: without the second part it
        # is the sum of the members' cross-entropies
        labelled = cross_entropy - torch.logsumexp(logits, 1).mean()
        apart = [self._apart(teacher, copy) + self._apart(copy, teacher) for copy in copies]
        return labelled + torch.stack(apart).sum()

    def _apart(self, teaching: Tensor, learning: Tensor) -> Tensor:
        """T²·KL(teaching ‖ learning), both softened by T."""
        heat = self.method.temperature
        target = F.log_softmax(teaching.detach() / heat, 1)
        answer = F.log_softmax(learning / heat, 1)
        return heat**2 * F.kl_div(answer, target, reduction="batchmean", log_target=True)
