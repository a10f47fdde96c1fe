"""What a pruning hands back, whatever was cut: units, blocks of weights, branches, or all three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from niwaki.core.blocks import BlockPlan
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps, Record, as_table, as_text
from niwaki.methods.base.cut import Cut
from niwaki.proof import Proof
from niwaki.pruning.bench import Bench
from niwaki.running import named_state
from niwaki.surgery import BlockSparse, hand_over, without_blocks

Form = Literal["module", "graph"]


@dataclass(frozen=True, repr=False)
class Result:
    """A pruned network and how it came to be.

    Attributes:
        model: the smaller module: of the original's class, in its train/eval mode; or, of form
            "graph", a `torch.fx.GraphModule` that runs as the original does in evaluation mode.
        cut: what was cut, and what the rest does for it.
        proof: what was shown of it.
        record: before and after, settings, versions, hardware, seed, wall times.
        notes: group name → what its compensation did, or why it could do nothing.
        left_whole: group, or branch, that was to be pruned and could not be → why.
        form: "module" or "graph".
        dependencies: what a report draws and `save` writes, where the scores came from pairs of
            layers.
        curves: group → what the network's answer loses with k units of it left, k = 0 … width,
            where the budget was divided by that (`scope="auto"`).
        influence: branch → block influence, in [0, 2], where branches were looked at.
        bench: what the network is timed against, where it has not been timed yet.
    """

    model: nn.Module
    cut: Cut
    proof: Proof
    record: Record
    notes: Mapping[str, str] = field(default_factory=dict)
    left_whole: Mapping[str, str] = field(default_factory=dict)
    form: Form = "module"
    dependencies: DependencyMaps | None = None
    influence: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    bench: Bench | None = None

    @property
    def plan(self) -> Plan:
        """What stayed."""
        return self.cut.plan

    @property
    def residuals(self) -> Mapping[str, float]:
        """Group → the share of what its consumers read that is lost, where that is known."""
        return self.cut.residuals

    @property
    def dropped(self) -> tuple[str, ...]:
        """Residual branches that are gone."""
        return tuple(self.plan.branches)

    @property
    def blocks(self) -> BlockPlan:
        """Weight → the blocks of it that stay, of the original's size."""
        return self.plan.blocks

    @cached_property
    def masked(self) -> nn.Module:
        """The network with ordinary layers, and zeros where blocks are gone."""
        return without_blocks(self.model)[0]

    @property
    def params_gone(self) -> float:
        """Share of the weights with blocks that is gone."""
        state = self.cut.graph.state
        kept = sum(int(held.mask(state[name]).sum()) for name, held in self.blocks.items())
        whole = sum(state[name].numel() for name in self.blocks)
        return 1 - kept / whole if whole else 0.0

    @property
    def stored(self) -> dict[str, tuple[int, int]]:
        """Weight with blocks → bytes at full size, and of what is left with what says where it
        belongs; without biases.
        """
        sizes, left = {}, named_state(self.model)
        for name in self.blocks:
            layer = self.model.get_submodule(name.rpartition(".")[0])
            index = layer.index_bytes if isinstance(layer, BlockSparse) else 0
            sizes[name] = (self.cut.graph.state[name].nbytes, left[name].nbytes + index)
        return sizes

    def hand_over(self, optimizer: Optimizer) -> tuple[str, ...]:
        """Hand an optimiser of the original over to the pruned network, in place, with what it
        remembers (momenta, second moments) cut like the parameters, so that training goes on.

        Returns:
            what a reader should know.

        Raises:
            SettingError: it is no optimiser of the original's parameters.
        """
        return hand_over(optimizer, self.cut.graph, self.plan, self.model)

    def measured(self) -> Result:
        """The same with latency and peak memory of both networks in its record, timed in turns: a
        second or two. Itself where they have been taken, or are not to be (`untimed`).
        """
        return self if self.bench is None else replace(self, record=self._timed, bench=None)

    def untimed(self) -> Result:
        """The same, which is never timed: printing or saving it costs no seconds."""
        return replace(self, bench=None)

    @cached_property
    def _timed(self) -> Record:
        return self.record if self.bench is None else self.bench.timed(self.model, self.record)

    def with_settings(self, **settings: Any) -> Result:
        """The same with more entries in its record's settings."""
        merged = {**self.record.settings, **settings}
        return replace(self, record=replace(self.record, settings=merged))

    def _repr_html_(self) -> str:
        """How a notebook shows it; timed for it, if it was not yet."""
        return as_table(self._timed)

    def __str__(self) -> str:
        """Before and after, timed for it if it was not yet, and what a reader must know."""
        notes = [f"* {note}" for note in self.record.notes]
        return "\n".join([as_text(self._timed), *notes])

    def __repr__(self) -> str:
        before, after = self.record.before.params, self.record.after.params
        return f"Result({type(self.model).__name__}, {before:,} → {after:,} parameters, proved)"
