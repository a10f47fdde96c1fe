"""A row whose network learns factors on its units or branches: SSS, GAL and OED. It starts from the
checkpoint, trains with the factors, and loses what ends at exactly zero; how much that is follows
from the penalty's weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from niwaki import models
from niwaki.core.errors import UnknownNameError
from niwaki.graph import Graph, trace
from niwaki.measure import count_params
from niwaki.measure.macs import count_macs
from niwaki.methods.base.cut import Cut
from niwaki.methods.factors import factors_of, fold_factors, plan_of_zeros, zero_branches
from niwaki.methods.gal import GAL
from niwaki.methods.oed import OED, Ensemble
from niwaki.methods.structure_selection import StructureSelection
from niwaki.papers.baselines.run import BATCH, WEIGHT_DECAY, Pruned, Row, Setup
from niwaki.proof import check
from niwaki.pruning.depth import drop_branches
from niwaki.surgery import shrink
from niwaki.training import Augment, Feed, FeedSettings, History, TrainSettings, fit
from niwaki.training import learning_rate as rate_after

Method = StructureSelection | GAL | OED
KEPT = "the last epoch is kept, both times; what ends at exactly zero goes"


def _sss(row: Row, model: nn.Module) -> Method:
    return StructureSelection(row.entry["over"], row.entry["reg"])


def _gal(row: Row, model: nn.Module) -> Method:
    entry = row.entry
    every = entry["every"][row.budget]
    return GAL(model, entry["over"], entry["reg"], entry["likeness"], every, seed=row.seed)


def _oed(row: Row, model: nn.Module) -> Method:
    return OED(row.entry["over"], row.entry["reg"], seed=row.seed)


METHODS: dict[str, Callable[[Row, nn.Module], Method]] = {"sss": _sss, "gal": _gal, "oed": _oed}


@dataclass(frozen=True)
class FactorRow(Row):
    """A row with `factors` ("sss", "gal" or "oed"), where they are (`over`), the penalty's weight
    `reg`, and by budget how long they are learned (`learned`).
    """

    kept: str = KEPT

    def _pruned(self, model: nn.Module, setup: Setup) -> Pruned:
        inputs = models.example_inputs(model)
        graph = trace(model, inputs)
        student = self._learned(graph, setup)
        folded = fold_factors(student).eval()
        plan, gone = plan_of_zeros(graph, student), zero_branches(student)
        if gone:
            smaller = drop_branches(folded, inputs, names=gone).model
        else:
            cut = Cut(trace(folded, inputs), plan)
            smaller = shrink(cut)
            check(cut, smaller)
        return Pruned(
            smaller,
            base=self._accuracy(model, setup)[0],
            untuned=self._accuracy(smaller, setup)[0],
            params=count_params(model),
            macs=count_macs(model, models.example_inputs(model, batch=1)),
            kept={name: len(entry.units) for name, entry in plan.items()},
            notes=(_said(student),),
        )

    def _learned(self, graph: Graph, setup: Setup) -> nn.Module:
        """The network with its factors, after training."""
        if self.entry["factors"] not in METHODS:
            raise UnknownNameError("method with factors", self.entry["factors"], METHODS)
        method = METHODS[self.entry["factors"]](self, graph.model)
        student: Any = method.prepare(graph).to(setup.places.device)
        feed = Feed(setup.training(), FeedSettings(BATCH, Augment(border="zero"), seed=self.seed))
        settings = self._settings()
        steps = settings.epochs * len(feed)

        def rate(step: int) -> float:
            return rate_after(settings, step / steps)

        fit(
            student,
            feed,
            settings=settings,
            distillation=None if isinstance(method, StructureSelection) else method,
            parameter_groups=[{"params": method.weights(student)}],
            after_step=method.after_step(rate),
            progress=False,
        )
        trained: nn.Module = student.best() if isinstance(student, Ensemble) else student
        return trained

    def _settings(self) -> TrainSettings:
        """A tenth of the rate after half of the run, a hundredth after three quarters."""
        how = self.entry["learned"][self.budget]
        return TrainSettings(
            how["epochs"],
            how["lr"],
            weight_decay=WEIGHT_DECAY,
            schedule="multistep",
            seed=self.seed,
        )

    def _tuned(self, teacher: nn.Module, smaller: nn.Module, setup: Setup) -> History:
        """As any row; methods of one cycle end with what is left."""
        if self.entry["factors"] == "gal":
            return super()._tuned(teacher, smaller, setup)
        return History((), 0, notes=("not fine-tuned, as published",))


def _said(student: nn.Module) -> str:
    """How many factors ended at zero, and which, where they are branches."""
    factors, gone = factors_of(student), zero_branches(student)
    zeros = sum(int((factor == 0).sum()) for factor in factors.values())
    of = sum(len(factor) for factor in factors.values())
    return f"{zeros} of {of} factors at zero{': ' * bool(gone)}{', '.join(gone)}"
