"""Knowledge distillation: what the unpruned network answers, and what it computes on the way, as
targets.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015 (logits); Romero et al.,
FitNets, 2015 (features).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.running import preserved_mode


@dataclass(frozen=True, eq=False)
class Distillation:
    """Learn from a teacher beside the labels.

    The loss becomes (1 - weight)·cross-entropy + weight·T²·KL(teacher ‖ student), both softened by
    the temperature T, plus feature_weight times the mean over the plan's groups of ‖student -
    teacher‖² / ‖teacher‖² of what the group's layer gives, over the units that were kept.

    Attributes:
        teacher: on the student's device; it is run in evaluation mode and never changed.
        plan: what the student was cut by: where features are compared; None: nowhere.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 4.0
    plan: Plan | None = None
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        allowed = {
            "weight must lie in [0, 1]": 0 <= self.weight <= 1,
            "temperature must be above 0": 0 < self.temperature < math.inf,
            "feature_weight must be 0 or more": 0 <= self.feature_weight < math.inf,
        }
        for rule, holds in allowed.items():
            if not holds:
                raise SettingError(f"{rule}; got {getattr(self, rule.split()[0])!r}")
        if self.feature_weight and not self.plan:
            raise SettingError(
                "feature_weight needs the plan that the student was cut by; pass plan=result.plan"
            )

    def __str__(self) -> str:
        teacher = (
            f"{type(self.teacher).__name__} of "
            f"{sum(p.numel() for p in self.teacher.parameters())} parameters"
        )
        return (
            f"{teacher}, weight={self.weight:g}, T={self.temperature:g}, "
            f"feature_weight={self.feature_weight:g}"
        )

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[Watch]:
        """Both networks with hooks where features are compared, until the block ends.

        Raises:
            SettingError: the plan names a layer that one of the two does not have.
        """
        groups = (
            {}
            if not (self.plan and self.feature_weight)
            else _layers(self.plan, student, self.teacher)
        )
        watch = Watch(self, groups)
        handles: list[RemovableHandle] = []
        try:
            for name in groups:
                handles.append(
                    student.get_submodule(name).register_forward_hook(
                        watch.keeper(watch.student, name)
                    )
                )
                handles.append(
                    self.teacher.get_submodule(name).register_forward_hook(
                        watch.keeper(watch.wanted, name)
                    )
                )
            with preserved_mode(self.teacher, training=False):
                yield watch
        finally:
            for handle in handles:
                handle.remove()


@dataclass(eq=False)
class Watch:
    """A teacher at work: `loss` after every forward of the student."""

    distillation: Distillation
    groups: dict[str, Kept]
    student: dict[str, Tensor] = field(default_factory=dict)
    wanted: dict[str, Tensor] = field(default_factory=dict)

    def keeper(
        self, features: dict[str, Tensor], name: str
    ) -> Callable[[nn.Module, object, Tensor], None]:
        """A hook that keeps what a layer gives."""

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            features[name] = output

        return keep

    def loss(self, inputs: Tensor, logits: Tensor, cross_entropy: Tensor) -> Tensor:
        """The whole loss, of the inputs and logits of the student's last forward."""
        given = self.distillation
        self.wanted.clear()
        with torch.no_grad():
            taught = logits_of(given.teacher(inputs))
        if taught.shape != logits.shape:
            raise SettingError(
                f"the teacher gives {tuple(taught.shape)} and the student {tuple(logits.shape)}: "
                "other classes"
            )
        soft = (
            F.log_softmax(logits.float() / given.temperature, 1),
            F.log_softmax(taught.float() / given.temperature, 1),
        )
        apart = F.kl_div(*soft, reduction="batchmean", log_target=True) * given.temperature**2
        total = (1 - given.weight) * cross_entropy + given.weight * apart
        if self.groups:
            errors = [self._error(name, kept) for name, kept in self.groups.items()]
            total = total + given.feature_weight * torch.stack(errors).mean()
        self.student.clear()
        return total

    def _error(self, name: str, kept: Kept) -> Tensor:
        mine, theirs = self.student[name].float(), self.wanted[name].float()
        for axis, (small, large) in enumerate(zip(mine.shape, theirs.shape, strict=True)):
            if small != large:
                if (small, large) != (len(kept.units), kept.width):
                    shapes = (
                        f"{tuple(mine.shape)} in the student and {tuple(theirs.shape)} in the "
                        "teacher"
                    )
                    raise SettingError(f"{name} gives {shapes}, which the plan does not explain")
                theirs = theirs.index_select(axis, torch.tensor(kept.units, device=theirs.device))
        return (mine - theirs).square().sum() / theirs.square().sum().clamp_min(1e-12)


def _layers(plan: Plan, student: nn.Module, teacher: nn.Module) -> dict[str, Kept]:
    """The plan's groups that are named after a layer which both networks have."""
    names = [dict(model.named_modules()).keys() for model in (student, teacher)]
    layers = {name: kept for name, kept in plan.items() if all(name in known for known in names)}
    if not layers:
        raise SettingError("no group of the plan is a layer of both networks; set feature_weight=0")
    return layers


def logits_of(output: object) -> Tensor:
    """The logits in what a model gives: a tensor, or an object that has them as `logits`.

    Raises:
        SettingError: neither.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise SettingError(
            "the model must give a tensor of logits to be trained; it gives "
            f"{type(output).__name__}"
        )
    return logits
