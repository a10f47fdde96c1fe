"""NISP: how important the last layer's responses are, told back through the network.

The responses that the classifier reads are ranked by infinite feature selection on calibration
inputs. Their importance s goes back by s_k = |W|ᵀ·s_(k+1): through a convolution transposed, a
normalisation by |γ/σ|, average pooling transposed, maximum pooling as if it were average pooling, a
function of one number as the identity; of a sum every branch gets s. All of that is one gradient:
that of <s, f(x)>, with f the network of absolute weights, no biases and identities for functions; a
unit's score is the sum over its places. Source: Yu, Li, Chen, Lai, Morariu, Han, Gao, Lin, Davis,
NISP: Pruning Networks using Neuron Importance Score Propagation, CVPR 2018, arXiv 1711.05908;
features: Roffo, Melzi, Cristani, Infinite Feature Selection, ICCV 2015.

Example: responses with s = (1, 2), computed by the rows (3, -1) and (0, 2) from two units, make
these score 3·1 + 0·2 = 3 and 1·1 + 2·2 = 5. With the second response pruned they are 3 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, Group
from niwaki.graph.inference import Read
from niwaki.methods._absolute import absolute_run, absolute_step
from niwaki.methods._gradients import gradients, inserted, spread
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Evidence
from niwaki.running import Op, Ref, batch_size, run

Final = list[tuple[Read, Tensor]]  # where classifiers read, and how important each response is

DAMPING = 0.9  # of the largest eigenvalue, so that the sum over all paths is finite


@CRITERIA.register("nisp")
@dataclass(frozen=True)
class Nisp(Criterion):
    """The importance of the last responses, propagated back; once a plan says how many units stay,
    those that go tell nothing on to earlier layers.

    Attributes:
        alpha: how much the spread of a response counts beside how little it is like others.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"nisp:alpha must lie in [0, 1]; got {self.alpha}")

    def score(self, group: Group, evidence: Evidence) -> Tensor:
        """Scores of one group; all are worked out together, so `scores` is the way to several."""
        return self.scores(evidence)[group.name]

    def scores(self, evidence: Evidence) -> dict[str, Tensor]:
        """Scores of all groups by name."""
        return propagated(evidence.graph, self._final(evidence), {})

    def refine(self, plan: Plan, evidence: Evidence) -> Plan:
        """As many units of every group, chosen from the last group to the first."""
        graph, final = evidence.graph, self._final(evidence)
        chosen: dict[str, Kept] = {}
        places = {
            name: position
            for position, here in sorted(inserted(graph, list(plan.kept)).items())
            for name, _, _ in here
        }
        for name in sorted(plan.kept, key=lambda name: -places.get(name, -1)):
            scores = propagated(graph, final, chosen)[name]
            best = scores.argsort(descending=True, stable=True)[: len(plan.kept[name])]
            chosen[name] = Kept(len(scores), tuple(best.sort().values.tolist()))
        return replace(plan, units={name: chosen[name] for name in plan.kept})

    def _final(self, evidence: Evidence) -> Final:
        """The importance of the last responses, worked out once."""
        if self not in evidence.known:
            responses = _responses(evidence, last_reads(evidence.graph))
            evidence.known[self] = [
                (read, infinite_feature_selection(torch.cat(rows), self.alpha))
                for read, rows in responses
            ]
        final: Final = evidence.known[self]
        return final


def last_reads(graph: Graph) -> list[Read]:
    """Where classifiers read their responses: sums through a weight whose results no other such sum
    is computed from.

    Raises:
        SettingError: nothing is read through a weight.
    """
    reads = {
        read.position: read
        for read in graph.inference.reads
        if read.weight is not None and not read.statistics
    }
    last: list[Read] = []
    leading: set[Ref] = set()  # values that some such sum is computed from
    for position, op in reversed(list(enumerate(graph.inference.tape.ops))):
        leads = any(ref in leading for ref in op.outputs)
        if position in reads and not leads:
            last.append(reads[position])
        if leads or position in reads:
            leading.update(op.tensors)
    if not last:
        raise SettingError("nisp starts at what the last layer reads, and no weight reads anything")
    return last


def _responses(evidence: Evidence, reads: list[Read]) -> list[tuple[Read, list[Tensor]]]:
    """What is read there, a row a sample and place: (rows, responses) a batch."""
    rows: dict[int, list[Tensor]] = {read.position: [] for read in reads}
    at = {read.position: read for read in reads}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if position in at:
            read, operand = at[position], args[at[position].slot].detach().double().cpu()
            rows[position].append(operand.movedim(read.axis, -1).flatten(0, -2))
        return op.func(*args, **kwargs)

    for inputs, _ in evidence.batches("nisp"):
        run(evidence.graph.model, evidence.graph.inference.tape, inputs, step)
    return [(read, rows[read.position]) for read in reads]


def infinite_feature_selection(features: Tensor, alpha: float) -> Tensor:
    """Scores of features (rows, n) → (n,): the sums of S = (I - r·A)⁻¹ - I, r = 0.9/ρ(A), with
    A_ij = α·max(σ_i, σ_j) + (1 - α)·(1 - |Spearman's correlation|), σ as shares of the largest.
    """
    spread_of = features.std(0, correction=0)
    spread_of = spread_of / spread_of.max().clamp(min=1e-300)
    apart = 1 - _spearman(features).abs()
    edges = alpha * torch.maximum(spread_of[:, None], spread_of) + (1 - alpha) * apart
    radius = torch.linalg.eigvalsh(edges).abs().max().clamp(min=1e-300)
    unit = torch.eye(len(edges), dtype=edges.dtype, device=edges.device)
    paths: Tensor = torch.linalg.inv(unit - DAMPING / radius * edges) - unit
    return paths.sum(1)


def _spearman(features: Tensor) -> Tensor:
    """Correlations of the columns' ranks; equal values share their mean rank, and a feature that
    never varies says nothing that another does not (1).
    """
    columns = features.T.contiguous()
    ordered = columns.sort(dim=1).values
    low = torch.searchsorted(ordered, columns)
    ranks = (low + torch.searchsorted(ordered, columns, right=True)).double()
    ranks = ranks - ranks.mean(1, keepdim=True)
    norms = ranks.norm(dim=1)
    product = ranks @ ranks.T / torch.outer(norms, norms).clamp(min=1e-300)
    still = norms == 0
    product[still], product[:, still] = 1.0, 1.0
    return product


def propagated(graph: Graph, final: Final, kept: Mapping[str, Kept]) -> dict[str, Tensor]:
    """Every group's scores, from the importance of the last responses; groups in `kept` have lost
    their other units.
    """
    goals, at_end = list[Tensor](), {read.position: (read, values) for read, values in final}
    names = [group.name for group in graph.groups]
    at = inserted(graph, names)
    masks = {name: _mask(entry) for name, entry in kept.items()}
    extras = {
        group.name: torch.zeros(
            1, group.width, dtype=torch.float64, device="cpu", requires_grad=True
        )
        for group in graph.groups
    }

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = list(args)
        for name, here, units in at.get(position, ()):
            operand: Tensor = changed[here.slot]
            if name in masks:
                operand = operand * spread(masks[name], operand, here, units, 1.0)
            changed[here.slot] = operand + spread(extras[name], operand, here, units, 0.0)
        if position in at_end:
            read, values = at_end[position]
            responses = changed[read.slot].movedim(read.axis, -1).flatten(0, -2)
            goals.append((responses * values.to(responses.device)).sum())
        return absolute_step(graph, position, op, tuple(changed), kwargs)

    with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        absolute_run(graph, step, 1 + max(at_end))
        slopes = gradients(torch.stack(goals).sum() / batch_size(graph.inputs), extras)
    return {name: slope[0].detach().cpu() for name, slope in slopes.items()}


def _mask(entry: Kept) -> Tensor:
    """(1, width), one where a unit stays."""
    mask = torch.zeros(1, entry.width, dtype=torch.float64, device="cpu")
    mask[0, list(entry.units)] = 1
    return mask
