"""What a plan would do, said before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from niwaki.core.budget import Budget, Unit
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph
from niwaki.pruning.costs import cost_without
from niwaki.running import batch_size

_COUNTED: tuple[Unit, ...] = ("params", "macs", "bytes")


@dataclass(frozen=True)
class PreviewRow:
    """One group.

    Attributes:
        lost: the share of the group's total score that goes with the dropped units; what plain
            selection gives up.
        residual: the share of what the group's consumers read that the compensation cannot make up
            for (see `niwaki.Cut`); None where it does not know.
        params, macs: what the network would have less if this group alone were pruned.
    """

    group: str
    width: int
    kept: int
    lost: float
    residual: float | None
    params: int
    macs: int


@dataclass(frozen=True)
class Preview:
    """A plan, and what it costs and saves; nothing was cut.

    Attributes:
        sizes: "params", "macs" (of one sample), "bytes" → before and after.
        measured: of a budget that is measured, the cost of a throwaway network of these sizes, as a
            share of the original's.
        branches: whole residual branches that would go → block influence, in [0, 2].
        notes: what must be said of how it was chosen.
    """

    plan: Plan
    rows: tuple[PreviewRow, ...]
    sizes: Mapping[str, tuple[int, int]]
    measured: Mapping[str, float]
    branches: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = [
            ("group", "units", "kept", "score lost", "signal lost", "params less", "MACs less")
        ]
        for row in self.rows:
            residual = "–" if row.residual is None else f"{row.residual:.1%}"
            counts = (
                f"{row.width}",
                f"{row.kept}",
                f"{row.lost:.1%}",
                residual,
                f"{row.params:,}",
                f"{row.macs:,}",
            )
            table.append((row.group, *counts))
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        totals = [
            f"{name}: {old:,} → {new:,} ({_share(old, new)})"
            for name, (old, new) in self.sizes.items()
        ]
        totals += [
            f"{name}: {share:.3f} of the original's, measured"
            for name, share in self.measured.items()
        ]
        gone = [
            f"{name}  the branch would go (block influence {influence:.2g})"
            for name, influence in self.branches.items()
        ]
        notes = [f"* {note}" for note in self.notes]
        table_lines = [*lines, ""] if self.rows else []
        return "\n".join([*table_lines, *gone, *([""] if gone else []), *totals, *notes])


def _share(old: int, new: int) -> str:
    return f"{1 - new / old:.1%} less" if old else "none"


@dataclass(frozen=True)
class Without:
    """Whole residual branches that would go.

    Attributes:
        branches: those.
        influence: branch → block influence, at least of those.
    """

    branches: tuple[Branch, ...] = ()
    influence: Mapping[str, float] = field(default_factory=dict)


def preview(
    graph: Graph,
    scores: Mapping[str, Tensor],
    plan: Plan,
    residuals: Mapping[str, float],
    measured: Mapping[str, float] | None = None,
    without: Without | None = None,
) -> Preview:
    """What pruning a graph's model by a plan would do to each group, and to the whole."""
    gone = without or Without()
    counts = {name: len(kept.units) for name, kept in plan.items()}
    samples = batch_size(graph.inputs)
    params, macs = graph.count_params(), graph.count_macs()
    rows = []
    for name, kept in plan.items():
        worth = scores[name].detach().double().cpu()
        low = worth.min().clamp(
            max=0
        )  # scores may be of any sign; what is lost is told from the lowest
        total = (worth - low).sum().item()
        left = (worth - low)[list(kept.units)].sum().item()
        alone = {name: counts[name]}
        rows.append(
            PreviewRow(
                name,
                kept.width,
                counts[name],
                1 - left / total if total else 0.0,
                residuals.get(name),
                params - graph.count_params(alone),
                (macs - graph.count_macs(alone)) // samples,
            )
        )
    costs = {unit: cost_without(graph, Budget(0.0, unit), gone.branches) for unit in _COUNTED}
    after = {unit: int(cost(counts)) for unit, cost in costs.items()}
    sizes = {
        "params": (params, after["params"]),
        "macs": (macs // samples, after["macs"] // samples),
        "bytes": (graph.count_bytes(), after["bytes"]),
    }
    going = {branch.name: gone.influence[branch.name] for branch in gone.branches}
    return Preview(plan, tuple(rows), sizes, dict(measured or {}), going)
