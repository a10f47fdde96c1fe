"""Blocks of weights that no later layer depends on are cut, what is left is trained, and the
network is made compact (MINT: train → prune → retrain).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.blocks import BlockPlan
from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.former import formerly
from niwaki.core.patterns import matches, patterns_of, refuse_strangers
from niwaki.core.plan import Plan
from niwaki.graph import Graph, trace
from niwaki.graph.pairs import LayerPair, layer_pairs
from niwaki.measure.task import EVALUATE, Batches, Evaluate, Judge, Task
from niwaki.methods.base import Calibration, Criterion, Evidence, Gives
from niwaki.methods.base.cut import Cut
from niwaki.methods.mint import Dependency, Estimation, Mint, layer_dependencies
from niwaki.methods.mint.blocks import CutOff, cut_blocks
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.proof import check
from niwaki.pruning._finish import Judged, finished
from niwaki.pruning.products import choose_products
from niwaki.pruning.result import Result
from niwaki.pruning.search import Attempt, Clock
from niwaki.pruning.selection import Selection
from niwaki.running import Inputs, named_state
from niwaki.surgery import blocks_after, idle_units, masked_state, remember, shrink, stored_bytes

Retrain = Callable[[nn.Module, Callable[[nn.Module], None]], Any]


class Masks:
    """Zeros that stay: called after every step of a training, with the model in training."""

    def __init__(self, plan: BlockPlan, state: Mapping[str, Tensor]) -> None:
        self._masks = {name: blocks.mask(state[name]) for name, blocks in plan.items()}

    def __call__(self, model: nn.Module) -> None:
        """Put the zeros back."""
        parameters = named_state(model)
        with torch.no_grad():
            for name, mask in self._masks.items():
                parameters[name].mul_(mask.to(parameters[name].device))

    @property
    def gone(self) -> float:
        """Share of the weights that are masked."""
        kept = sum(int(mask.sum()) for mask in self._masks.values())
        return 1 - kept / sum(mask.numel() for mask in self._masks.values())


def scope(
    pairs: Sequence[LayerPair], only: str | Sequence[str] = (), skip: str | Sequence[str] = ()
) -> list[LayerPair]:
    """The pairs with blocks whose child's name matches a glob of `only` (all without one) and none
    of `skip`.

    Raises:
        SettingError: a pattern that matches no layer, or nothing is left.
    """
    wanted, unwanted = patterns_of(only), patterns_of(skip)
    refuse_strangers("layer", [pair.child for pair in pairs], (*wanted, *unwanted))
    chosen = [
        pair
        for pair in pairs
        if (not wanted or matches(pair.child, wanted))
        and not matches(pair.child, unwanted)
        and pair.columns is not None
    ]
    if not chosen:
        raise SettingError(
            "no layer is left to trim: each must read its parent through a weight of its own"
        )
    return chosen


@formerly(data=EVALUATE)
def trim(  # noqa: PLR0913  # a public verb
    model: nn.Module,
    example_inputs: Inputs,
    *,
    cut_off: CutOff,
    dependencies: Sequence[Dependency] | None = None,
    calibration: Calibration | Gives | None = None,
    estimation: Estimation | None = None,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    retrain: Retrain | None = None,
    evaluate: Task | Evaluate | Batches | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Cut blocks of weights that no later layer depends on, train what is left, and make the
    network compact.

    The model itself is not touched. The result is checked as any cut is: against the masked
    network at full size.

    Args:
        cut_off: how much goes.
        dependencies: from `niwaki.layer_dependencies` on this model; estimated here without them,
            from `calibration` and as `estimation` says.
        only, skip: glob patterns on the names of the layers that lose blocks.
        retrain: trains the masked model, which the channels that say nothing have left already, in
            place: (model, hold) → anything; it must call `hold(model)` after every step, as
            `niwaki.training.fit(…, after_step=hold)` does.
        evaluate: as for `niwaki.prune`.
        settings: more entries for the record's settings.

    Raises:
        SettingError, BudgetError: see `layer_dependencies`, `scope` and `cut_blocks`.
        SurgeryError: the compact network does not compute what the masked one does.
    """
    judge, clock, remarks = Judge.of(evaluate), Clock(), list[str]()
    with clock.stage("trace"):
        graph = trace(model, example_inputs)
    with clock.stage("score"):
        pairs = scope(layer_pairs(graph), only, skip)
        if dependencies is None:
            seen = None if calibration is None else Calibration.of(calibration)
            generator = torch.Generator().manual_seed(seed)
            evidence = Evidence(graph, seen, generator, say=remarks.append)
            dependencies = layer_dependencies(evidence, pairs, estimation or Estimation())
    inside = {pair.weight for pair in pairs}
    dependencies = [item for item in dependencies if item.pair.weight in inside]
    remarks += dict.fromkeys(remark for item in dependencies for remark in item.remarks)
    blocks = cut_blocks(dependencies, graph.state, cut_off)
    gone = Masks(blocks, graph.state).gone
    lean = without_idle(graph, blocks)
    if retrain is not None:
        with clock.stage("retrain"):
            lean = retrained(lean, retrain)
    attempt = _compact(lean, clock)
    described = {
        "criterion": "mint",
        "granularity": "block",
        **dataclasses.asdict(cut_off),
        "only": list(patterns_of(only)),
        "skip": list(patterns_of(skip)),
        **(settings or {}),
    }
    result = finished(
        attempt, Budget(0.0), described, clock, seed=seed, judged=Judged(judge, against=model)
    )
    said = f"{gone:.2%} of the weights of {len(blocks)} layers went"
    record = replace(
        result.record,
        before=replace(result.record.before, bytes=stored_bytes(model)),
        after=replace(result.record.after, bytes=stored_bytes(result.model)),
        notes=(said, *_plain(graph), *lean.remarks, *remarks, *result.record.notes),
    )
    maps = dependency_maps(dependencies, blocks=blocks, units=lean.units)
    whole = Cut(graph, replace(lean.units, blocks=blocks), lean.cut.mixings)
    return replace(result, cut=whole, record=record, dependencies=maps)


def _plain(graph: Graph) -> list[str]:
    """That weights which layers compute are ordinary ones once blocks of them are gone."""
    names = [weight.name for weight in graph.computed if weight.kind != "mask"]
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"{', '.join(names[:3])}{more} are ordinary weights now: weight_norm and spectral_norm are "
        "left off"
    ]


def as_blocks(budget: Budget, criterion: Criterion, selection: Selection) -> dict[str, Any]:
    """What `prune` was asked, in the words of `trim`: a budget of params is the share of these
    layers' weights that goes, and `at_most` the share that no layer exceeds.

    Raises:
        SettingError: another criterion than MINT, or settings that say nothing about blocks.
    """
    if not isinstance(criterion, Mint):
        raise SettingError(
            "blocks of weights are chosen by how layers depend on one another: give "
            "criterion='mint' and calibration inputs"
        )
    if budget.unit != "params" or budget.also:
        raise SettingError(
            f"blocks go by a share of the weights, budget='params=0.9'; got {budget}"
        )
    refuse_idle(
        scope=selection.or_local().scope != "local",
        shares=bool(selection.shares),
        min_units=selection.min_units != 1,
        rule=selection.rule != "exact",
    )
    return {
        "cut_off": CutOff(params=budget.amount, upper_limit=selection.at_most),
        "estimation": criterion.estimation(),
        "only": selection.only,
        "skip": selection.skip,
        "settings": {"what": "blocks", "budget": str(budget)},
    }


def refuse_idle(**given: bool) -> None:
    """Refuse settings that would do nothing for blocks.

    Raises:
        SettingError: one is given; it is named.
    """
    idle = [name for name, is_given in given.items() if is_given]
    if idle:
        raise SettingError(
            f"{idle[0]} says how units go; blocks of weights have no use for it: leave it out"
        )


@dataclass(frozen=True)
class Lean:
    """A masked network without the channels that say nothing.

    Attributes:
        cut: what is to be cut from `cut.graph`'s network: blocks, and the channels that say
            nothing without them.
        model: the masked network without these channels; ordinary layers, and zeros in them.
        units: which channels stayed, of the network that was masked first.
        unread, constant: how many channels left as nothing read them, or as they were always the
            same.
        stays: on channels that are always the same, and had to stay, and on layers that nothing
            gets through.
    """

    cut: Cut
    model: nn.Module
    units: Plan
    unread: int = 0
    constant: int = 0
    stays: tuple[str, ...] = ()

    @property
    def blocks(self) -> BlockPlan:
        """The blocks of what is left."""
        return blocks_after(self.cut.graph, self.cut.plan)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know."""
        first = f"{self.unread} channels left that nothing reads any more"
        also = (
            f", and {self.constant} that read nothing: their constants went into biases"
            if self.constant
            else ""
        )
        return (first + also, *self.stays)


def without_idle(graph: Graph, blocks: BlockPlan) -> Lean:
    """A masked copy of a graph's model without the channels that say nothing any more
    (`niwaki.surgery.idle`).

    Raises:
        SurgeryError: it does not compute what the masked one at full size does.
    """
    masked = copy.deepcopy(graph.model)
    state = named_state(masked)
    with torch.no_grad():
        for name, tensor in masked_state(Plan(blocks=blocks), state).items():
            state[name].copy_(tensor)
    idle = idle_units(replace(graph, model=masked), blocks)
    cut = Cut(graph, replace(idle.plan, blocks=blocks), idle.mixings)
    # masks hold ordinary weights: what norms them would undo the zeros
    ordinary = Cut(replace(graph, model=masked, computed=()), idle.plan, idle.mixings)
    smaller = shrink(ordinary)
    if idle.plan.kept:
        check(ordinary, smaller)
    remember(graph.model, smaller, idle.plan, graph.inputs)
    return Lean(cut, smaller, idle.plan, idle.unread, idle.constant, idle.remarks)


def retrained(lean: Lean, retrain: Retrain) -> Lean:
    """The masked network trained, and channels that have come to say nothing taken out.

    A constant may have become zero, so that a border of zeros does not matter to it any more.
    """
    hold = Masks(lean.blocks, named_state(lean.model))
    retrain(lean.model, hold)
    hold(lean.model)
    more = without_idle(trace(lean.model, lean.cut.graph.inputs), lean.blocks)
    if not more.units.kept:
        more = replace(more, stays=lean.stays)
    counts = lean.unread + more.unread, lean.constant + more.constant
    return replace(more, units=lean.units.then(more.units), unread=counts[0], constant=counts[1])


def _compact(lean: Lean, clock: Clock) -> Attempt:
    """The network whose layers hold only blocks, proved."""
    with clock.stage("shrink"):
        smaller = shrink(lean.cut)
    with clock.stage("check"):
        proof = check(lean.cut, smaller)
        choose_products(smaller, lean.cut.graph.inputs)
    return Attempt(smaller, lean.cut, proof, {})
