"""D(k): what the network's answer loses when a group keeps k units, for every group and k.

The answer is measured with each group cut at a few counts (niwaki.methods.distortion.probes); D
passes through these, and between them it has the shape of E (niwaki.methods.distortion.shape):

    log D(k) = log E(k) + c(k),     c piecewise linear through the measured counts.

Losses of several groups are taken to add up, which is what makes it quick to divide a budget
(arXiv 2308.10438 has found that to be nearly so).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from niwaki.core.errors import NiwakiError
from niwaki.core.plan import Kept, Plan
from niwaki.methods.auto.compensation import Auto
from niwaki.methods.base.compensation import Compensation
from niwaki.methods.base.cut import Scores
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.examples import judged_on
from niwaki.methods.data_free.repair import DerivedMoments
from niwaki.methods.distortion.probes import Probes
from niwaki.methods.distortion.shape import of_moments, of_scores
from niwaki.methods.none import NoCompensation
from niwaki.methods.reconstruction.repair import Reconstruct
from niwaki.running import Inputs, batch_size, batched, preserved_rng

LEVELS = (0.75, 0.5, 0.25, 0.1)  # shares of a group that are kept when its loss is measured
MANY = 64  # groups; of more, the loss is measured at a half only
PASSES = 5000  # samples through the network, over all measurements
FEWEST, MOST = 32, 256  # samples a measurement
TINY = 1e-12


def with_curves(scores: Scores, repair: Compensation, names: Iterable[str]) -> Scores:
    """Scores with D of some groups: (width + 1,) each, of k = 0 … width kept units.

    Args:
        repair: what will be done for the units that go.
    """
    evidence = scores.evidence
    names = [name for name in names if name in scores]
    shapes = {name: of_scores(scores[name]) for name in names}
    if evidence is None or any(tensor.is_meta for tensor in evidence.graph.state.values()):
        return replace(scores, curves=shapes)
    orders = {name: scores[name].argsort(descending=True, stable=True) for name in names}
    if not isinstance(repair, NoCompensation):
        shapes |= of_moments(evidence, orders)
    try:
        with preserved_rng(), torch.no_grad():
            measured = _measured(evidence, orders, apart(repair, evidence))
    except (NiwakiError, RuntimeError) as error:
        evidence.say(
            "the answer could not be measured with one group cut, so all groups count alike: "
            f"{str(error).splitlines()[0]}"
        )
        return replace(scores, curves=shapes)
    curves = {name: through(shape, measured.get(name, {})) for name, shape in shapes.items()}
    return replace(scores, curves=curves)


def through(shape: Tensor, measured: Mapping[int, float]) -> Tensor:
    """The shape, scaled so that it passes through what was measured: count → loss.

    >>> through(torch.tensor([1.0, 0.5, 0.25, 0.0]).double(), {1: 5.0})
    tensor([10.0000,  5.0000,  2.5000,  0.0000], dtype=torch.float64)
    """
    width = len(shape) - 1
    known = sorted((count, loss) for count, loss in measured.items() if 0 < count < width)
    curve = shape.clamp(min=TINY)
    if known:
        counts = torch.arange(width + 1, dtype=torch.float64, device="cpu")
        at = torch.tensor([count for count, _ in known], device="cpu")
        losses = torch.tensor([loss for _, loss in known], dtype=torch.float64, device="cpu")
        factors = (losses.clamp(min=TINY) / curve[at]).log()
        curve = curve * _interpolated(counts, at.double(), factors).exp()
    falling: Tensor = curve.flip(0).cummax(0).values.flip(0)
    falling[width] = 0.0
    return falling


def _interpolated(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear, and constant outside."""
    if len(known) == 1:
        return values.expand(len(at))
    right = torch.searchsorted(known, at).clamp(1, len(known) - 1)
    share = (at - known[right - 1]) / (known[right] - known[right - 1])
    return torch.lerp(values[right - 1], values[right], share.clamp(0, 1))


def apart(repair: Compensation, evidence: Evidence) -> Compensation:
    """The same compensation, such that no group's mixing depends on what else is cut."""
    if isinstance(repair, Auto):
        free = evidence.calibration is None
        return DerivedMoments() if free else Reconstruct(order="parallel")
    if isinstance(repair, Reconstruct):
        return replace(repair, order="parallel", guard=False)
    return replace(repair, guard=False) if isinstance(repair, DerivedMoments) else repair


def _measured(
    evidence: Evidence, orders: Mapping[str, Tensor], repair: Compensation
) -> dict[str, dict[int, float]]:
    """Group → count → what the answer loses."""
    levels = LEVELS if len(orders) <= MANY else (0.5,)
    samples = int(PASSES / max(1.0, len(orders) * len(levels) * 0.5))  # half of a pass each
    probes = Probes(evidence.graph, list(inputs_of(evidence, min(max(samples, FEWEST), MOST))))
    cuts = [repair.apply(evidence, at_share(orders, level)) for level in levels]
    measured: dict[str, dict[int, float]] = {}
    for cut, losses in zip(cuts, probes.alone(cuts), strict=True):
        for name, loss in losses.items():
            measured.setdefault(name, {})[len(cut.plan[name].units)] = loss
    return measured


def at_share(orders: Mapping[str, Tensor], level: float) -> Plan:
    """The best units of every group, so large a share of each."""
    kept = {}
    for name, order in orders.items():
        count = max(1, round(len(order) * level))
        kept[name] = Kept(len(order), tuple(order[:count].sort().values.tolist()))
    return Plan(kept)


def inputs_of(evidence: Evidence, samples: int) -> Iterator[Inputs]:
    """So many calibration inputs, or the example inputs."""
    if evidence.calibration is None:
        example = judged_on(evidence.graph.inputs)
        yield batched(example, min(batch_size(example), samples))
        return
    left = samples
    for inputs, _ in evidence.batches("scope='auto'"):
        size = batch_size(inputs)
        yield batched(inputs, min(size, left))
        left -= size
        if left <= 0:
            return
