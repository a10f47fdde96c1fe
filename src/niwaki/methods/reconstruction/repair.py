"""Reconstruction: all units as the least squares of the kept ones, from unlabelled inputs.

Neuron Merging gives a dropped unit's role to one kept unit; this is its natural end, all kept units
at once, and a constant. The inputs are gone through once, all layers in step: before a layer that
reads pruned units, the original and the network as it is so far have both run up to there on all
inputs; what the original's units are there is fitted with the kept units as they are now, so that
every layer also makes up for what is left of the errors before it. A weight that reads several
times is fitted where it reads first.

Source: the least squares itself is that of He, Zhang, Sun, Channel Pruning for Accelerating Very
Deep Neural Networks, ICCV 2017, eq. 4, taken over units in the place of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from niwaki.core.errors import SettingError, TraceError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Folded, Graph
from niwaki.graph.offsets import offsets
from niwaki.graph.places import Places
from niwaki.methods.base.compensation import COMPENSATIONS, Compensation
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.base.guard import guarded
from niwaki.methods.base.held_out import Split
from niwaki.methods.base.lockstep import lockstep
from niwaki.methods.heads import turned
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.units import Reader, consumer_gram, readers
from niwaki.methods.reconstruction.least_squares import Joint, as_one, residual, signal, solve
from niwaki.methods.reconstruction.ridge import cross_validated
from niwaki.running import (
    Playback,
    Tape,
    batch_size,
    live_bytes,
    plainly,
    preserved_rng,
    restated,
    tensors_in,
)

Runs = list[tuple[Playback, Playback, Places]]

RAISED = 0.2  # the ridge at least, with one row a kept unit; more with fewer


@COMPENSATIONS.register("reconstruct")
@dataclass(frozen=True)
class Reconstruct(Compensation):
    """Least squares on calibration inputs.

    Attributes:
        ridge: λ as a share of the mean variance of the kept units; without it, the one that fits
            best where single rows are left out, of each consumer
            (niwaki.methods.reconstruction.ridge).
        places: how many places of a map are looked at in every input; neighbours tell nearly the
            same.
        order: "sequential" as above; "parallel" fits every layer to the original's own units, at
            the cost of one pass.
        memory: GiB that the activations of a sequential run may take; beyond it the order is
            "parallel".
        guard: hold out a tenth of the inputs, and leave out or weaken what loses there against
            plain pruning.
    """

    ridge: float | None = None
    places: int = 32
    order: Literal["sequential", "parallel"] = "sequential"
    memory: float = 4.0
    guard: bool = False

    def __post_init__(self) -> None:
        if self.ridge is not None and not 0 <= self.ridge < float("inf"):
            raise SettingError(f"reconstruct:ridge must be 0 or more; got {self.ridge}")
        if self.places < 1:
            raise SettingError(f"reconstruct:places must be at least 1; got {self.places}")

    def apply(self, evidence: Evidence, plan: Plan) -> Cut:
        if not self.guard:
            return self._repaired(evidence, plan)
        split = Split.of(evidence, "reconstruct")
        cut = self._repaired(split.evidence, plan)
        return guarded(cut, cut.graph, plan, split)

    def _repaired(self, evidence: Evidence, plan: Plan) -> Cut:
        heads = turned(evidence, plan, "reconstruct", data=True)
        evidence = replace(evidence, graph=heads.graph)
        fit = _Fit(evidence.graph, plan, self.ridge, self.places)
        if self.order == "parallel":
            fit.parallel(evidence)
        else:
            fit.sequential(evidence, self.memory * 2**30)
        return heads.told(replace(fit.result(), evidence=evidence))


def at_once(
    method: Reconstruct,
    evidence: Evidence,
    plan: Plan,
    counted: Mapping[str, Mapping[str, Moments]],
) -> Cut:
    """Every layer fitted to the original's own units, from what was counted of them.

    Args:
        counted: as `gather` gives it, of the plan's groups.
    """
    fit = _Fit(evidence.graph, plan, method.ridge, method.places)
    fit.from_moments(counted)
    return replace(fit.result(), evidence=evidence)


class _Fit:
    """The mixings of one plan, found one after the other."""

    def __init__(self, graph: Graph, plan: Plan, ridge: float | None, places: int) -> None:
        self._graph, self._plan, self._ridge, self._places = graph, plan, ridge, places
        self._obstacles = {name: graph[name].fold_obstacle for name in plan.kept}
        self._shiftable = {name: offsets(graph, name)[1] for name in plan.kept}
        self._readers = readers(
            graph, [name for name, obstacle in self._obstacles.items() if obstacle is None]
        )
        self._calls: dict[str, list[Reader]] = {}
        for reader in self._all():
            self._calls.setdefault(reader.weight, []).append(reader)
        calls = {
            weight: [reader.position for reader in here] for weight, here in self._calls.items()
        }
        self._order = lockstep(graph.inference.tape, calls)
        self._first = {
            weight: min(self._order.place[position] for position in here)
            for weight, here in calls.items()
        }
        self._gathered: dict[str, dict[str, Moments]] = {}
        self._found: dict[str, dict[str, Mixing]] = {}
        self._left: dict[str, list[tuple[float, float]]] = {}
        self._inputs = 0
        self._remarks: dict[str, str] = {}

    def parallel(self, evidence: Evidence) -> None:
        """Every mixing from the moments of the original alone: one run."""
        self._inputs = sum(batch_size(inputs) for inputs, _ in evidence.batches("reconstruct"))
        groups = {reader.group for reader in self._all()}
        self.from_moments(gather(evidence, groups, "reconstruct", self._places))

    def from_moments(self, counted: Mapping[str, Mapping[str, Moments]]) -> None:
        """Every mixing from the moments of the original's units."""
        groups = {reader.group for reader in self._all()}
        for name, weights in ((name, counted[name]) for name in counted if name in groups):
            for weight, moments in weights.items():
                joint = Joint.of_original(moments.mean, moments.covariance, self._plan.kept[name])
                self._solve(name, weight, joint, moments.effective)

    def sequential(self, evidence: Evidence, limit: float) -> None:
        """Every mixing from the original and from the network as it is by then, run side by
        side.
        """
        with preserved_rng():
            runs = self._started(evidence, limit)
            if runs is None:
                self._at_once(evidence, "layer by layer would take more memory than memory= allows")
                return
            masked = Folded(self._graph, self._plan, {})
            try:
                for weight in sorted(self._calls, key=lambda weight: self._first[weight]):
                    self._fit_weight(evidence, weight, masked, runs)
            except TraceError:
                raise
            except RuntimeError as error:  # of torch: an operator that is not to be played back
                why = str(error).splitlines()[0]
                self._at_once(evidence, f"the layers could not be run one by one ({why})")

    def _at_once(self, evidence: Evidence, why: str) -> None:
        """All layers fitted to the original in one run, and a remark on why."""
        self._found, self._left, self._remarks, self._inputs = {}, {}, {}, 0
        self.parallel(evidence)
        said = f"{why}, so all layers were fitted to the original"
        self._remarks = {name: f"; {said}{self._remarks.get(name, '')}" for name in self._found}

    def _fit_weight(self, evidence: Evidence, weight: str, masked: Folded, runs: Runs) -> None:
        """The mixings that one weight reads through, over all its calls."""
        if weight in self._order.apart:
            self._fit_apart(evidence, weight)
        else:
            for original, smaller, _ in runs:
                original.until(self._first[weight], plainly)
                smaller.until(self._first[weight], self._order.step(masked.run))
            self._fit_stopped(weight, runs)
        for name in {reader.group for reader in self._calls[weight]} & self._found.keys():
            masked.mixings[name] = as_one(self._found[name])

    def _fit_stopped(self, weight: str, runs: Runs) -> None:
        """From runs that stand before the calls of a weight."""
        moments: dict[str, Moments] = {}
        for reader in self._calls[weight]:
            place, slot = self._order.place[reader.position], reader.read.slot
            width = reader.width + len(self._plan.kept[reader.group])
            counted = moments.setdefault(reader.group, Moments(width))
            for original, smaller, places in runs:
                theirs, ours = (run.arguments(place)[0][slot] for run in (original, smaller))
                rows = self._rows(reader, theirs, ours, places)
                where = f"what {self._layer(reader.position)} reads"
                counted.add(rows, where, len(places.starts))
        for name, counted in moments.items():
            joint = Joint.of_rows(counted.mean, counted.covariance, self._graph[name].width)
            self._solve(name, weight, joint, counted.effective)

    def _fit_apart(self, evidence: Evidence, weight: str) -> None:
        """From the original's own units."""
        names = {reader.group for reader in self._calls[weight]}
        if weight not in self._gathered:
            every = {r.group for apart in self._order.apart for r in self._calls[str(apart)]}
            counts = gather(evidence, every | names, "reconstruct", self._places)
            for name, weights in counts.items():
                for read, counted in weights.items():
                    self._gathered.setdefault(read, {})[name] = counted
        for name, counted in self._gathered[weight].items():
            joint = Joint.of_original(counted.mean, counted.covariance, self._plan.kept[name])
            self._solve(name, weight, joint, counted.effective)

    def _started(self, evidence: Evidence, limit: float) -> Runs | None:
        """Two runs a batch, none of which has begun, and the places to look at; None where they
        would take too much memory.
        """
        tapes: dict[Any, Tape] = {}
        runs, taken = [], 0
        for inputs, _ in evidence.batches("reconstruct"):
            shapes = tuple(tuple(tensor.shape) for tensor in tensors_in(inputs))
            if shapes not in tapes:
                tape = restated(self._graph.model, self._graph.inference.tape, inputs)
                tapes[shapes] = self._order.tape(tape)
            taken += 2 * live_bytes(tapes[shapes])
            if taken > limit:
                return None
            original, smaller = (
                Playback(tapes[shapes], self._graph.state, inputs) for _ in range(2)
            )
            runs.append((original, smaller, Places.of(inputs, self._places)))
            self._inputs += batch_size(inputs)
        return runs

    def _rows(self, reader: Reader, original: Tensor, smaller: Tensor, places: Places) -> Tensor:
        """[r | z] of niwaki.methods.reconstruction.least_squares, a row a place."""
        kept = torch.as_tensor(self._plan.kept[reader.group], device="cpu")
        left, z = reader.rows(original, None, places).clone(), reader.rows(smaller, kept, places)
        left[:, kept.to(left.device)] -= z
        return torch.cat([left, z], 1)

    def _solve(self, name: str, weight: str, joint: Joint, rows: float) -> None:
        """Find the mixing that one weight reads through, from moments that are worth so many
        rows.
        """
        try:
            self._solved(name, weight, joint, rows)
        except RuntimeError as error:  # of torch: a factorisation that fails, memory
            self._obstacles[name] = f"the fit failed: {str(error).splitlines()[0]}"
            self._found.pop(name, None)

    def _solved(self, name: str, weight: str, joint: Joint, rows: float) -> None:
        units, shift = self._plan.kept[name], self._shiftable[name] is None
        gram = consumer_gram(self._graph, name, weight)
        ridge = self._ridge
        if ridge is None:
            ridge = cross_validated(joint, gram, rows, shift=shift)
        if rows <= len(units):  # the fit would go through every row
            ridge = max(ridge, RAISED * len(units) / max(rows, 1))
            self._remarks[name] = (
                f"; ridge raised to {ridge:.2g}: {len(units)} kept units, and inputs worth "
                f"{rows:.0f} rows"
            )
        mixing = solve(joint, units, ridge, shift=shift)
        self._found.setdefault(name, {})[weight] = mixing
        self._left.setdefault(name, []).append(
            (residual(joint, mixing, units, gram), signal(joint, units, gram))
        )

    def _all(self) -> Iterator[Reader]:
        return (reader for here in self._readers.values() for reader in here)

    def _layer(self, position: int) -> str:
        return self._graph.inference.tape.ops[position].layer or "the model"

    def result(self) -> Cut:
        """All mixings, with a sentence and the share of the signal that is lost for every pruned
        group.
        """
        mixings, notes, residuals = {}, {}, {}
        for name, obstacle in self._obstacles.items():
            if obstacle is not None or name not in self._found:
                notes[name] = (
                    f"not reconstructed: {obstacle or 'no calibration input reached its consumers'}"
                )
                continue
            mixings[name] = as_one(self._found[name])
            lost, signal = (sum(part) for part in zip(*self._left[name], strict=True))
            residuals[name] = lost / signal if signal > 0 else 0.0
            notes[name] = (
                f"reconstructed from {self._inputs} inputs, {residuals[name]:.2%} of what its "
                "consumers read is lost"
            )
            notes[name] += self._remarks.get(name, "")
            if self._shiftable[name] is not None:
                notes[name] += f"; without a constant: {self._shiftable[name]}"
        return Cut(self._graph, self._plan, mixings, notes, residuals)
