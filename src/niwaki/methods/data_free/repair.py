"""Least squares without any data: the moments of the units follow from the weights and the stored
statistics.

Every value of the network is taken to be Gaussian (niwaki.methods.data_free.propagate); inputs have
zero mean and unit variance, or those of the example inputs, and a neighbourhood that is mostly
smooth: cov = 0.2·[same place] + 0.8·exp(-distance/3 places), which is what images look like. The
least squares of all units on the kept ones under these moments trusts them too much where few units
are left: what it cannot predict it shrinks towards the mean. Neuron Merging keeps the size of what
it moves, but only looks at one unit. The mean of the two mixings is better than either where units
can be merged; where they cannot, the least squares alone is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph.offsets import offsets
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.guard import guarded
from niwaki.methods.base.held_out import Split
from niwaki.methods.data_free._derive import Give, Part, stream
from niwaki.methods.data_free.gaussian import precision
from niwaki.methods.data_free.prior import Prior
from niwaki.methods.heads import turned
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.neuron_merging import Merge
from niwaki.methods.reconstruction.dropped import Dropped, Move
from niwaki.methods.reconstruction.least_squares import as_one

MOST_HELD = 2**28  # bytes
Also = Callable[[str, Sequence[Part], Tensor], None]


@COMPENSATIONS.register("moments")
@dataclass(frozen=True)
class DerivedMoments(Compensation):
    """Least squares under Gaussian moments, half and half with merging.

    Attributes:
        ridge: λ as a share of the mean variance of the kept units.
        blend: in [0, 1], the weight of merging where it can be done.
        white, reach: the prior of neighbouring places, white·[same place] + (1 -
            white)·exp(-distance/reach).
        guard: leave out or weaken what loses against plain pruning on the example inputs.
    """

    ridge: float = 1e-3
    blend: float = 0.5
    white: float = 0.2
    reach: float = 3.0
    guard: bool = False

    def __post_init__(self) -> None:
        for name, value, most in (
            ("ridge", self.ridge, float("inf")),
            ("blend", self.blend, 1),
            ("white", self.white, 1),
        ):
            if not 0 <= value <= most:
                raise SettingError(f"moments:{name} must be from 0 to {most}; got {value}")
        if not self.reach > 0:
            raise SettingError(f"moments:reach must be above 0; got {self.reach}")

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        cut = self._repaired(evidence, plan)
        if not self.guard:
            return cut
        return guarded(cut, cut.graph, plan, Split.of(evidence, "moments"))

    def _repaired(self, evidence: Evidence, plan: Plan) -> Cut:
        heads = turned(evidence, plan, "moments", data=False)
        return heads.told(derived(self, replace(evidence, graph=heads.graph), [plan])[0])

    def result(self, evidence: Evidence, plan: Plan, fits: Mapping[str, _Fit]) -> Cut:
        """The cut of fits that have seen all consumers."""
        mixings, notes, residuals = {}, {}, {}
        for name in plan.kept:
            fit = fits.get(name)
            if fit is None or not fit.mixings:
                why = fit.obstacle if fit is not None else evidence.graph[name].fold_obstacle
                notes[name] = f"not repaired: {why or 'no weight reads it'}"
                continue
            mixings[name], residuals[name] = as_one(fit.mixings), fit.lost
            notes[name] = (
                f"fitted to derived moments{', half merged' if fit.merged else ''}; by these "
                f"{residuals[name]:.2%} is lost"
            )
        return Cut(evidence.graph, plan, mixings, notes, residuals, evidence=evidence)


def derived(
    method: DerivedMoments, evidence: Evidence, plans: Sequence[Plan], also: Also | None = None
) -> list[Cut]:
    """Each plan repaired, all from one walk over the network.

    Args:
        also: is given (group, moments in parts, Gram matrix of the weight that reads) too.
    """
    graph = evidence.graph
    names = dict.fromkeys(name for plan in plans for name in plan.kept)
    free = [name for name in names if graph[name].fold_obstacle is None]
    fits = [
        {name: _Fit(method, evidence, name, plan.kept[name]) for name in free if name in plan.kept}
        for plan in plans
    ]

    def give(name: str, weight: str, parts: list[Part]) -> None:
        gram = consumer_gram(graph, name, weight, form=precision(parts[-1].stop))
        if also is not None:
            also(name, parts, gram)
        for fit in (of_plan[name] for of_plan in fits if name in of_plan):
            fit.add(weight, parts, gram)

    prior = Prior(method.white, method.reach)
    held = evidence.known.get(prior)
    if isinstance(held, Held) and held.parts.keys() >= set(free):
        held.replay(free, give)
    elif also is None:
        stream(graph, free, prior, give)
    else:  # there will be more plans
        evidence.known[prior] = held = Held()
        stream(graph, free, prior, held.taking(give))
    return [method.result(evidence, plan, own) for plan, own in zip(plans, fits, strict=True)]


@dataclass
class Held:
    """Derived moments that are kept for other plans, as long as they take little memory.

    Attributes:
        parts: group → weight that reads it → moments; empty once they take too much.
    """

    parts: dict[str, dict[str, list[Part]]] = field(default_factory=dict)
    _bytes: int = 0

    def taking(self, give: Give) -> Give:
        """The same, which keeps what it is given."""

        def take(name: str, weight: str, parts: list[Part]) -> None:
            give(name, weight, parts)
            self._bytes += sum(4 * part.covariance.numel() for part in parts)
            if self._bytes > MOST_HELD:
                self.parts.clear()
                return
            single = [replace(part, covariance=part.covariance.float()) for part in parts]
            self.parts.setdefault(name, {})[weight] = single

        return take

    def replay(self, names: Iterable[str], give: Give) -> None:
        """Give away what was kept of some groups."""
        for name in names:
            for weight, parts in self.parts[name].items():
                wide = [replace(part, covariance=part.covariance.double()) for part in parts]
                give(name, weight, wide)


class _Fit:
    """The mixings of one group, consumer by consumer.

    Attributes:
        mixings: consumer weight → its mixing; empty from the first that cannot be had.
        obstacle: why there is none.
        merged: the mixing of merging, where it can be done and has a share.
    """

    def __init__(
        self, settings: DerivedMoments, evidence: Evidence, name: str, units: Sequence[int]
    ) -> None:
        self._settings, self._units = settings, torch.as_tensor(units, device="cpu")
        self._shift = offsets(evidence.graph, name)[1] is None
        group, blend = evidence.graph[name], settings.blend
        self.merged = Merge().mix(group, units, evidence.state)[0] if blend else None
        self.mixings: dict[str, Mixing] = {}
        self.obstacle: str | None = None
        self._errors = [0.0, 0.0]

    @property
    def lost(self) -> float:
        """The share of what the consumers read that is lost, by the derived moments."""
        error, signal = self._errors
        return error / signal if signal > 0 else 0.0

    def add(self, weight: str, parts: list[Part], gram: Tensor) -> None:
        """Find the mixing of one consumer."""
        if self.obstacle is not None:
            return
        try:
            mixing = self._mixing(parts, gram)
        except RuntimeError as error:  # of torch: a factorisation that fails, memory
            self._refuse(f"the fit failed: {str(error).splitlines()[0]}")
            return
        if not bool(torch.isfinite(mixing.matrix).all()):
            self._refuse(f"the moments of what {weight} reads are not finite")
            return
        self.mixings[weight] = mixing

    def _refuse(self, why: str) -> None:
        self.obstacle = why
        self.mixings.clear()

    def _mixing(self, parts: list[Part], gram: Tensor) -> Mixing:
        """Part by part, as parts are correlated with no others."""
        width = parts[-1].stop
        matrix = Mixing.selecting(width, self._units.tolist()).matrix
        shift = torch.zeros(width, dtype=torch.float64, device="cpu")
        for part in parts:
            columns = (self._units >= part.start) & (self._units < part.stop)
            inside = (self._units[columns] - part.start).tolist()
            known = Dropped.of(part.mean, part.covariance, inside)
            here = gram[part.start : part.stop, part.start : part.stop]
            move, error = self._best(known, here, part, columns.nonzero().flatten())
            self._errors[0] += error
            self._errors[1] += known.signal(here)
            rows = known.dropped + part.start
            matrix[rows[:, None], columns.nonzero().flatten()] = move.rows
            shift[rows] = 0.0 if move.constant is None else move.constant
        return Mixing(matrix, shift if self._shift else None)

    def _best(
        self, known: Dropped, gram: Tensor, part: Part, columns: Tensor
    ) -> tuple[Move, float]:
        """Least squares, half and half with merging where that does no harm by these moments; with
        what is lost.
        """
        fitted = known.solve(self._settings.ridge, shift=self._shift)
        if self.merged is not None:
            blended = self._blended(fitted, self.merged.matrix[known.dropped + part.start], columns)
            error = known.residual(blended, gram)
            if not error > known.residual(known.plain(), gram):
                return blended, error
        return fitted, known.residual(fitted, gram)

    def _blended(self, fitted: Move, merged: Tensor, columns: Tensor) -> Move:
        """Units that merging gives to one of another part are fitted alone."""
        here = merged[:, columns]
        outside = (merged != 0).any(1) & ~(here != 0).any(1)
        share = torch.full((len(here),), self._settings.blend, dtype=torch.float64, device="cpu")
        share[outside] = 0.0
        rows = (1 - share)[:, None] * fitted.rows + share[:, None] * here
        return Move(rows, None if fitted.constant is None else (1 - share) * fitted.constant)
