"""Dependencies → blocks that go → masks → training under them → a network that holds only what is
left.

MINT as its paper has it (arXiv 2003.08472): not whole channels go, but blocks of weights between
groups of channels. Channels that nothing reads any more leave the network at once, and so do those
that read nothing any more: they are constants, which go into the biases of what reads them. In the
    end nothing is masked any more, and layers hold and multiply only the blocks that
they kept.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError, SurgeryError
from niwaki.core.plan import Plan
from niwaki.core.records import DependencyMaps, Record
from niwaki.graph import Graph, trace
from niwaki.graph.pairs import LayerPair, layer_pairs
from niwaki.measure import compare
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.mint._layer_dependencies import Dependency, Estimation, layer_dependencies
from niwaki.methods.mint.blocks import BlockPlan, CutOff, LayerBlocks, cut_blocks
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.proof._check import check
from niwaki.running import (
    Inputs,
    call,
    copied,
    named_state,
    preserved_mode,
    preserved_state,
    tensors_in,
)
from niwaki.surgery import (
    BlockSparse,
    can_be_blocks,
    idle_units,
    remember,
    shrink,
    stored_bytes,
    with_blocks,
)

Batch = tuple[Tensor, Tensor]
Retrain = Callable[[nn.Module, Callable[[nn.Module], None]], Any]
TOLERANCE = 1e-4  # of the largest output; blocks are summed in another order than dense weights are
TIMED = 20  # runs of a layer, of which the quickest counts


@dataclass(frozen=True)
class Trimmed:
    """A trimmed network and how it came to be.

    Attributes:
        model: the compact network, in the original's train/eval mode.
        masked: the same with ordinary layers, and zeros in them.
        plan: channels that left the network.
        blocks: blocks that stayed, by weight, of the original's size.
        params_gone: share of the weights of the trimmed layers that went.
        stored: weight → (bytes at full size, bytes of what is left with what says where it
            belongs).
        record: before and after.
        dependencies: what the blocks were chosen by, and what was cut, to be drawn; `save` writes
            it.
    """

    model: nn.Module
    masked: nn.Module
    plan: Plan
    blocks: BlockPlan
    params_gone: float
    stored: Mapping[str, tuple[int, int]]
    record: Record
    dependencies: DependencyMaps


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
        return 1 - sum(int(mask.sum()) for mask in self._masks.values()) / sum(
            mask.numel() for mask in self._masks.values()
        )


def scope(
    pairs: Sequence[LayerPair], only: str | Sequence[str] = (), skip: str | Sequence[str] = ()
) -> list[LayerPair]:
    """The pairs with blocks whose child's name matches a glob of `only` (all without one) and none
    of `skip`.

    Raises:
        SettingError: a pattern that matches no layer, or nothing is left.
    """
    wanted, unwanted = ((text,) if isinstance(text, str) else tuple(text) for text in (only, skip))
    for pattern in (*wanted, *unwanted):
        if not any(fnmatchcase(pair.child, pattern) for pair in pairs):
            known = ", ".join(pair.child for pair in pairs[:8])
            raise SettingError(
                f"no layer is named like {pattern!r}; layers are: {known}{', …' * (len(pairs) > 8)}"
            )

    def chosen(pair: LayerPair) -> bool:
        inside = not wanted or any(fnmatchcase(pair.child, pattern) for pattern in wanted)
        return (
            inside
            and not any(fnmatchcase(pair.child, pattern) for pattern in unwanted)
            and pair.columns is not None
        )

    found = [pair for pair in pairs if chosen(pair)]
    if not found:
        raise SettingError(
            "no layer is left to trim: each must read its parent through a weight of its own"
        )
    return found


def trim(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    cut_off: CutOff,
    dependencies: Sequence[Dependency] | None = None,
    calibration: Calibration | Iterable[Inputs] | Callable[[], Iterable[Inputs]] | None = None,
    estimation: Estimation | None = None,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    retrain: Retrain | None = None,
    data: Callable[[], Iterable[Batch]] | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Trimmed:
    """Cut blocks of weights that no later layer depends on, train what is left, and make the
    network compact.

    The model itself is not touched. The result is checked: the network without the channels that
    left against the masked one by `niwaki.check`, the layers of blocks against the dense ones by
    running both.

    Args:
        cut_off: how much goes.
        dependencies: from `niwaki.methods.mint.layer_dependencies` on this model; estimated here
            without them, from `calibration` and as `estimation` says.
        only, skip: glob patterns on the names of the layers that lose blocks.
        retrain: trains the masked model, which the channels that say nothing have left already, in
            place: (model, hold) → anything; it must call `hold(model)` after every step, as
            `niwaki.training.fit(…, after_step=hold)` does.
        data: gives (inputs, class numbers) batches afresh, for accuracy and loss before and after.
            Nothing is chosen on it.
        settings: more entries for the record's settings.

    Raises:
        SettingError, BudgetError: see `layer_dependencies`, `scope` and `cut_blocks`.
        SurgeryError: the compact network does not compute what the masked one does.
    """
    graph = trace(model, example_inputs)
    seconds: dict[str, float] = {}
    remarks: list[str] = []
    start = time.perf_counter()
    pairs = scope(layer_pairs(graph), only, skip)
    if dependencies is None:
        seen = None if calibration is None else Calibration.of(calibration)
        evidence = Evidence(graph, seen, torch.Generator().manual_seed(seed), say=remarks.append)
        dependencies = layer_dependencies(evidence, pairs, estimation or Estimation())
    inside = {pair.weight for pair in pairs}
    dependencies = [item for item in dependencies if item.pair.weight in inside]
    remarks += dict.fromkeys(remark for item in dependencies for remark in item.remarks)
    seconds["score"] = time.perf_counter() - start
    plan = cut_blocks(dependencies, graph.state, cut_off)
    gone = Masks(plan, graph.state).gone
    lean = without_idle(model, example_inputs, plan)
    if retrain is not None:
        start = time.perf_counter()
        hold = Masks(lean.blocks, named_state(lean.model))
        retrain(lean.model, hold)
        hold(lean.model)
        seconds["retrain"] = time.perf_counter() - start
        lean = lean.again(example_inputs)
    compact = make_compact(lean.model, example_inputs, lean.blocks)
    with preserved_state(model), preserved_state(compact):
        before, after = compare(model, compact, copied(example_inputs), data)
    described = {
        "criterion": "mint",
        "granularity": "block",
        **dataclasses.asdict(cut_off),
        "only": [only] if isinstance(only, str) else list(only),
        "skip": [skip] if isinstance(skip, str) else list(skip),
        **(
            {"input_shape": list(example_inputs.shape[1:])}
            if isinstance(example_inputs, Tensor)
            else {}
        ),
        **(settings or {}),
    }
    before = dataclasses.replace(before, bytes=stored_bytes(model))
    after = dataclasses.replace(after, bytes=stored_bytes(compact))
    notes = (f"{gone:.2%} of the weights of {len(plan)} layers went", *lean.remarks, *remarks)
    record = Record(before, after, described, seed, seconds, notes)
    maps = dependency_maps(dependencies, blocks=plan, units=lean.units)
    return Trimmed(
        compact, lean.model, lean.units, plan, gone, _stored(graph, compact, plan), record, maps
    )


def _stored(graph: Graph, compact: nn.Module, plan: BlockPlan) -> dict[str, tuple[int, int]]:
    """Bytes of the trimmed weights, without biases, before and after."""
    sizes = {}
    for weight in plan:
        layer = compact.get_submodule(weight.rpartition(".")[0])
        tensor = named_state(compact)[weight]
        index = layer.index_bytes if isinstance(layer, BlockSparse) else 0
        sizes[weight] = (graph.state[weight].nbytes, tensor.nbytes + index)
    return sizes


@dataclass(frozen=True)
class Lean:
    """A masked network without the channels that say nothing.

    Attributes:
        model: it; ordinary layers, and zeros in them.
        units: which channels stayed, of the network that was masked first.
        blocks: the blocks of what is left.
        unread, constant: how many channels left as nothing read them, or as they were always the
            same.
        stays: on channels that are always the same, and had to stay, and on layers that nothing
            gets through.
    """

    model: nn.Module
    units: Plan
    blocks: BlockPlan
    unread: int = 0
    constant: int = 0
    stays: tuple[str, ...] = ()

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

    def again(self, example_inputs: Inputs) -> Lean:
        """Once more after a training: a constant may have become zero, so that a border of zeros
        does not matter to it.
        """
        more = without_idle(self.model, example_inputs, self.blocks)
        if not more.units.kept:
            return self
        counts = self.unread + more.unread, self.constant + more.constant
        return Lean(more.model, self.units.then(more.units), more.blocks, *counts, more.stays)


def without_idle(model: nn.Module, example_inputs: Inputs, plan: BlockPlan) -> Lean:
    """A masked copy of a model without the channels that say nothing any more
    (`niwaki.surgery.idle`).

    Raises:
        SurgeryError: it does not compute what the masked one at full size does.
    """
    masked = copy.deepcopy(model)
    Masks(plan, named_state(masked))(masked)
    graph = trace(masked, example_inputs)
    idle = idle_units(graph, plan)
    smaller = shrink(graph, idle.plan, idle.mixings)
    if idle.plan.kept:
        check(graph, idle.plan, idle.mixings, smaller)
        _refuse_difference(masked, smaller, example_inputs, "the network without idle channels")
    remember(model, smaller, idle.plan, example_inputs)
    blocks = BlockPlan(_after(graph, idle.plan, plan))
    return Lean(smaller, idle.plan, blocks, idle.unread, idle.constant, idle.remarks)


def make_compact(masked: nn.Module, example_inputs: Inputs, plan: BlockPlan) -> nn.Module:
    """A network whose layers hold only what is left of a masked one's; layers that have no form of
    blocks stay as they are.

    Raises:
        SurgeryError: it does not compute what the masked one does.
    """
    compact = with_blocks(
        masked, {weight.rpartition(".")[0]: plan[weight] for weight in _with_a_form(masked, plan)}
    )
    _refuse_difference(masked, compact, example_inputs, "the network of blocks")
    choose_products(compact, example_inputs)
    return compact


def _with_a_form(model: nn.Module, plan: BlockPlan) -> list[str]:
    """Weights of layers that can hold blocks, and that no other layer shares."""
    owners = Counter(
        id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)
    )
    state = named_state(model)
    return [
        name
        for name, blocks in plan.items()
        if can_be_blocks(model.get_submodule(name.rpartition(".")[0]))
        and owners[id(state[name])] == 1
        and (blocks.out_axis, blocks.in_axis) == (0, 1)
    ]


def _after(graph: Graph, units: Plan, plan: BlockPlan) -> dict[str, LayerBlocks]:
    """What the blocks are once channels have left."""
    indices = graph.kept_indices(units.kept)
    found = {}
    for name, blocks in plan.items():
        axes = indices.get(name, {})
        rows, columns = (
            tuple(side[i] for i in axes[axis].tolist()) if axis in axes else side
            for axis, side in ((blocks.out_axis, blocks.rows), (blocks.in_axis, blocks.columns))
        )
        kept = tuple(
            (row, column) for row, column in blocks.kept if row in rows and column in columns
        )
        found[name] = LayerBlocks(rows, columns, kept, blocks.out_axis, blocks.in_axis)
    return found


def _refuse_difference(masked: nn.Module, made: nn.Module, inputs: Inputs, what: str) -> None:
    outputs = []
    for network in (masked, made):
        with torch.no_grad(), preserved_mode(network, training=False), preserved_state(network):
            outputs.append(list(tensors_in(call(network, copied(inputs)))))
    for wanted, found in zip(*outputs, strict=True):
        if not wanted.is_floating_point():
            continue
        gap = float(
            (wanted.double() - found.double()).abs().max()
            / wanted.double().abs().max().clamp(min=1e-30)
        )
        if not gap <= TOLERANCE:
            raise SurgeryError(
                f"{what} differs from the masked one by {gap:.1e} of the largest output"
            )


def choose_products(model: nn.Module, inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Let every layer of blocks multiply by a dense weight where that is quicker on inputs like
    these.

    Returns:
        layer → milliseconds with blocks and with a dense weight.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BlockSparse)
    }
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), preserved_mode(model, training=False), preserved_state(model):
        hooks = [
            module.register_forward_pre_hook(_noting(seen, name)) for name, module in layers.items()
        ]
        try:
            call(model, copied(inputs))
        finally:
            for hook in hooks:
                hook.remove()
        times = {
            name: (_milliseconds(layers[name], x, False), _milliseconds(layers[name], x, True))
            for name, x in seen.items()
        }
    for name, (blocks, dense) in times.items():
        layers[name].dense = dense < blocks
    return times


def _noting(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.setdefault(name, args[0])

    return note


def _milliseconds(layer: BlockSparse, x: Tensor, dense: bool) -> float:
    layer.dense = dense
    best = float("inf")
    for _ in range(TIMED):
        start = time.perf_counter()
        layer(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        best = min(best, time.perf_counter() - start)
    return 1000 * best
