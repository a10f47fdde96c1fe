"""The same curves for the price of a few forward passes, at few counts: those of equal shares, and
a few others. Without calibration inputs losses are told to first order; with some, they are
measured on a handful, for a slope says little of a large cut.
(ResNet-56, half of the multiply-adds, 1,024 inputs, 2,000 other training images: 91.9 % to first
order on 64 samples, 94.4 to 98.1 % measured on 4 to 32.)

Moments are derived, or counted on a part of the calibration inputs, once: the shape of every curve
comes from them, and the mixings that are looked at (niwaki.methods.distortion.slopes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph
from niwaki.methods.base.compensation import Compensation
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Batch, Calibration, Evidence
from niwaki.methods.data_free._derive import Part
from niwaki.methods.data_free.repair import DerivedMoments, derived
from niwaki.methods.distortion.curves import LEVELS, apart, at_share, inputs_of, through
from niwaki.methods.distortion.probes import Probes
from niwaki.methods.distortion.shape import Shape, curves_of, of_scores
from niwaki.methods.distortion.slopes import slopes
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.reconstruction.repair import Reconstruct, at_once
from niwaki.running import Inputs, batch_size, preserved_rng, tensors_in

COUNTED = 256  # inputs that moments are counted on
DRAWS = 64  # samples and directions
LEAST, PASSES = 4, 1024  # samples of a measurement, and samples through half of the network in all
SHARES = (0.5, 0.15)  # of a group that is kept when its loss is measured
FEWEST, NUMBERS = 16, 2**22  # samples of an input, and numbers in all of them
AT_ONCE = 32  # samples whose gradients are held

Fit = Callable[[Sequence[Plan]], list[Cut]]


@dataclass(frozen=True, eq=False)
class Quick:
    """What was worked out.

    Attributes:
        curves: group → what the answer loses with k units of it left, (width + 1,).
        fit: plans → their cuts, each group repaired by itself.
        cuts: those of the plans that were looked at.
    """

    curves: dict[str, Tensor]
    fit: Fit
    cuts: list[Cut]


def quick(
    scores: Mapping[str, Tensor], evidence: Evidence, repair: Compensation, equal: Plan
) -> Quick:
    """Curves of the groups of a plan.

    Args:
        scores: of all its groups.
        repair: what will be done for the units that go.
        equal: counts near those that a division will come to.

    Raises:
        NiwakiError, RuntimeError: the answer has no derivative, or the network cannot be played.
    """
    orders = {name: scores[name].argsort(descending=True, stable=True) for name in equal.kept}
    plans = [equal, *_others(orders, equal, measured=evidence.calibration is not None)]
    method = apart(repair, evidence)
    with preserved_rng(), torch.no_grad():
        shapes, cuts, fit = _fitted(method, evidence, orders, plans)
        losses = _losses(evidence, cuts)
    curves = {}
    for name, order in orders.items():
        known = {len(cut.plan[name].units): of[name] for cut, of in zip(cuts, losses, strict=True)}
        shape = shapes[name] if name in shapes else of_scores(scores[name])
        curves[name] = through(shape, {k: loss for k, loss in known.items() if k < len(order)})
    return Quick(curves, fit, cuts)


def _others(orders: Mapping[str, Tensor], equal: Plan, measured: bool) -> list[Plan]:
    """What is looked at beside equal shares: half of these; where it is measured, shares far from
    each other.
    """
    if not measured:
        return [_of(orders, {name: len(kept.units) // 2 for name, kept in equal.items()})]
    return [at_share(orders, share) for share in SHARES]


def _losses(evidence: Evidence, cuts: Sequence[Cut]) -> list[dict[str, float]]:
    """For each cut, group → what the answer loses when that group alone is cut as there."""
    graph = evidence.graph
    if evidence.calibration is None:
        return slopes(graph, list(_chunks(inputs_of(evidence, _samples(graph)))), cuts, DRAWS)
    runs = sum(len(cut.plan.kept) for cut in cuts)
    samples = min(FEWEST, max(LEAST, PASSES // max(1, runs)))
    return Probes(graph, list(inputs_of(evidence, samples))).alone(cuts)


def _fitted(
    method: Compensation, evidence: Evidence, orders: Mapping[str, Tensor], plans: list[Plan]
) -> tuple[dict[str, Tensor], list[Cut], Fit]:
    """Shapes of curves, the plans repaired, and how others are."""
    graph, shapes = evidence.graph, {name: Shape(order) for name, order in orders.items()}
    if isinstance(method, DerivedMoments):

        def take(name: str, parts: Sequence[Part], gram: Tensor) -> None:
            shapes[name].add_parts(parts, gram)

        cuts = derived(method, evidence, plans, take)
        return curves_of(shapes), cuts, lambda more: derived(method, evidence, more)
    if isinstance(method, Reconstruct):
        free = [name for name in orders if graph[name].fold_obstacle is None]
        counted = gather(_few(evidence), free, "reconstruct", method.places)
        for name, weights in counted.items():
            for weight, moments in weights.items():
                shapes[name].add(moments.covariance, consumer_gram(graph, name, weight))

        def fit(more: Sequence[Plan]) -> list[Cut]:
            return [at_once(method, evidence, plan, counted) for plan in more]

        return curves_of(shapes), fit(plans), fit

    def apply(more: Sequence[Plan]) -> list[Cut]:
        return [method.apply(evidence, plan) for plan in more]

    levels = ({name: int(level * len(order)) for name, order in orders.items()} for level in LEVELS)
    return {}, apply([*plans, *(_of(orders, counts) for counts in levels)]), apply


def _of(orders: Mapping[str, Tensor], counts: Mapping[str, int]) -> Plan:
    """The best units of every group, one at least."""
    kept = {}
    for name, order in orders.items():
        best = order[: max(1, counts[name])]
        kept[name] = Kept(len(order), tuple(best.sort().values.tolist()))
    return Plan(kept)


def _few(evidence: Evidence) -> Evidence:
    """The same with a part of the calibration inputs."""

    def batches() -> Iterator[Batch]:
        return ((inputs, None) for inputs in inputs_of(evidence, COUNTED))

    return replace(evidence, calibration=Calibration(batches))


def _samples(graph: Graph) -> int:
    """How many samples the answer is looked at on."""
    numbers = sum(tensor.numel() for tensor in tensors_in(graph.inputs))
    each = max(1, numbers // max(1, batch_size(graph.inputs)))
    return max(FEWEST, min(DRAWS, NUMBERS // each))


def _chunks(batches: Iterator[Inputs]) -> Iterator[Inputs]:
    """Batches of a few samples each."""
    for inputs in batches:
        size = batch_size(inputs)
        parts = -(-size // AT_ONCE)
        for part in range(parts):
            yield _rows(inputs, size, part * size // parts, (part + 1) * size // parts)


def _rows(inputs: Inputs, size: int, start: int, stop: int) -> Inputs:
    """Some of a batch's samples."""

    def change(leaf: object) -> object:
        of_samples = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size
        return leaf[start:stop] if of_samples else leaf  # type: ignore[index]  # as it says

    rows: Inputs = tree_map(change, inputs)
    return rows
