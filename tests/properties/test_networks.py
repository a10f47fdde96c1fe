"""Random networks: the smaller one computes what the masked one computes, and survives JSON and
disk.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import oracle
import pytest
import torch
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from random_networks.draw import Draw, Residual, T
from random_networks.images import PLAIN, Shuffle
from torch import Tensor, nn

import niwaki
from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Kept, Plan
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.base.cut import Cut
from niwaki.proof.reference import reference_outputs
from niwaki.pruning.trimming import Masks, without_idle

pytestmark = pytest.mark.usefixtures("one_thread")


class Searched(Draw):
    """Choices that hypothesis makes, and makes smaller where a test fails."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(0)
        self._draw = draw

    def of(self, *choices: T) -> T:
        """One of these."""
        return choices[self._draw(st.integers(0, len(choices) - 1))]

    def yes(self, share: float = 0.5) -> bool:
        """Whatever finds the mistake; the share is for chance alone."""
        return self._draw(st.booleans())

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return self._draw(st.integers(low, high))


@st.composite
def convolutional(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A stack of random parts on images of 6 × 6, pooled or flattened into a linear layer."""
    chance = Searched(draw)
    channels = chance.number(2, 3)
    part, width = PLAIN["conv"](chance, channels)
    layers = [part]
    for _ in range(chance.number(0, 4)):
        part, width = PLAIN[chance.of(*PLAIN)](chance, width)
        layers.append(part)
    if chance.yes():
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3)]
    else:
        layers += [
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 7),
            nn.BatchNorm1d(7),
            nn.ReLU(),
            nn.Linear(7, 3),
        ]
    return nn.Sequential(*layers), (2, channels, 6, 6)


@st.composite
def perceptrons(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    widths = draw(st.lists(st.integers(2, 9), min_size=2, max_size=4))
    layers: list[nn.Module] = []
    before = 5
    for width in widths:
        layers.append(nn.Linear(before, width, bias=draw(st.booleans())))
        norm = draw(st.sampled_from([None, nn.BatchNorm1d, nn.LayerNorm]))
        layers += [norm(width)] if norm else []
        layers.append(Searched(draw).activation())
        if draw(st.booleans()):
            layers.append(
                Residual(nn.Sequential(nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, width)))
            )
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 3)), (4, 5)


@st.composite
def cases(draw: st.DrawFn) -> tuple[niwaki.Graph, Plan, dict[str, Mixing]]:
    """A traced network with telling weights, any plan for it, and any mixings where its groups can
    take them.
    """
    torch.manual_seed(draw(st.integers(0, 2**16)))
    model, shape = draw(st.one_of(convolutional(), perceptrons()))
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
            for key, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.is_floating_point():
                    tensor.data = (
                        torch.rand_like(tensor) + 0.5 if "var" in key else torch.randn_like(tensor)
                    )
    model.double().eval()
    graph = niwaki.trace(model, torch.randn(shape).double())
    kept, mixings = {}, {}
    for group in graph.groups:
        units = sorted(draw(st.sets(st.integers(0, group.width - 1), min_size=1)))
        kept[group.name] = Kept(group.width, tuple(units))
        if (
            len(units) < group.width
            and group.fold_obstacle is None
            and group.normalised is None
            and draw(st.booleans())
        ):
            mixings[group.name] = Mixing(torch.randn(group.width, len(units), dtype=torch.float64))
    return graph, Plan(kept), mixings


def image(graph: niwaki.Graph) -> Tensor:
    """The example of a network that takes one tensor."""
    assert isinstance(graph.inputs, Tensor)
    return graph.inputs


def shrunk(graph: niwaki.Graph, plan: Plan, mixings: dict[str, Mixing]) -> nn.Module:
    """The smaller network; a case where a shuffle's sizes cannot be told apart (2 groups of 2),
    which the check must see, is passed over.
    """
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
    if any(isinstance(module, Shuffle) for module in pruned.modules()):
        try:
            niwaki.check(niwaki.Cut(graph, plan, mixings), pruned)
        except niwaki.NiwakiError:
            reject()
    return pruned


@given(cases())
def test_the_smaller_network_computes_what_the_masked_one_computes(
    case: tuple[niwaki.Graph, Plan, dict[str, Mixing]],
) -> None:
    graph, plan, mixings = case
    pruned = shrunk(graph, plan, mixings)
    other = torch.randn(image(graph).shape, dtype=torch.float64)
    wanted, found = (
        reference_outputs(Cut(graph, plan, mixings), other),
        oracle.outputs(pruned, other),
    )
    assert oracle.distance(wanted, found) < 1e-10
    if oracle.is_simple(graph, plan):
        assert (
            oracle.distance(oracle.outputs(oracle.masked(graph, plan, mixings), other), found)
            < 1e-10
        )
    assert {
        name: tuple(tensor.shape) for name, tensor in pruned.state_dict().items()
    } == graph.shapes_after(plan.kept)


@given(cases(), st.integers(0, 2**16))
def test_blocks_and_what_they_leave_idle_go_from_any_network(
    case: tuple[niwaki.Graph, Plan, dict[str, Mixing]], seed: int
) -> None:
    """Rows, columns and single blocks are gone: what nothing reads, or nothing feeds, leaves, and
    nothing changes.
    """
    graph, generator = case[0], torch.Generator().manual_seed(seed)
    assume(not any(isinstance(module, Shuffle) for module in graph.model.modules()))
    blocks = {}
    for pair in layer_pairs(graph):
        if pair.columns is not None and float(torch.rand((), generator=generator)) < 0.8:
            rows, columns = int(pair.rows.max()) + 1, int(pair.columns.max()) + 1
            kept = torch.rand(rows, columns, generator=generator) < 0.8
            kept &= (torch.rand(rows, 1, generator=generator) < 0.7) & (
                torch.rand(1, columns, generator=generator) < 0.7
            )
            sides = tuple(pair.rows.tolist()), tuple(pair.columns.tolist())
            stays = tuple((row, column) for row, column in kept.nonzero().tolist())
            blocks[pair.weight] = LayerBlocks(*sides, stays, pair.out_axis, pair.in_axis)
    assume(blocks)
    lean = without_idle(graph, BlockPlan(blocks))
    masked = copy.deepcopy(graph.model)
    Masks(BlockPlan(blocks), dict(masked.named_parameters()))(masked)
    for other in (graph.inputs, torch.randn(image(graph).shape, dtype=torch.float64)):
        assert (
            oracle.distance(oracle.outputs(masked, other), oracle.outputs(lean.model, other)) < 1e-9
        )
    assert sum(parameter.numel() for parameter in lean.model.parameters()) <= sum(
        parameter.numel() for parameter in [*masked.parameters(), *_new_biases(masked, lean.model)]
    )


def _new_biases(before: nn.Module, after: nn.Module) -> list[Tensor]:
    known = dict(before.named_parameters())
    return [parameter for name, parameter in after.named_parameters() if name not in known]


@given(cases())
def test_single_precision_is_enough(case: tuple[niwaki.Graph, Plan, dict[str, Mixing]]) -> None:
    graph, plan, mixings = case
    graph = niwaki.trace(graph.model.float(), image(graph).float())
    pruned = shrunk(graph, plan, mixings)
    wanted, found = (
        reference_outputs(Cut(graph, plan, mixings), graph.inputs),
        oracle.outputs(pruned, graph.inputs),
    )
    assert oracle.distance(wanted, found) < 1e-5


@given(cases())
def test_a_plan_survives_json(case: tuple[niwaki.Graph, Plan, dict[str, Mixing]]) -> None:
    plan = case[1]
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert list(again) == list(plan)
    assert again.kept == plan.kept


WIDTH_AND_UNITS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))
)


@given(st.dictionaries(st.text(min_size=1), WIDTH_AND_UNITS))
def test_any_name_survives_json(groups: dict[str, tuple[int, set[int]]]) -> None:
    plan = Plan(
        {name: Kept(width, tuple(sorted(units))) for name, (width, units) in groups.items()}
    )
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.usefixtures("quick_latency")
@given(
    st.one_of(convolutional(), perceptrons()),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, "params=0.3"]),
    st.integers(0, 99),
)
def test_pruned_saved_and_loaded_is_the_same_network(
    made: tuple[nn.Module, tuple[int, ...]], budget: float | str, seed: int
) -> None:
    model, shape = made
    torch.manual_seed(seed)
    example = torch.randn(shape)
    if not niwaki.trace(model, example).groups:
        return
    result = niwaki.prune(model, example, budget=budget, criterion="random", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        niwaki.save(result, Path(folder) / "out")
        loaded = niwaki.load(Path(folder) / "out", model=model)
    assert loaded.state_dict().keys() == result.model.state_dict().keys()
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    other = torch.randn(shape)
    assert oracle.distance(oracle.outputs(result.model, other), oracle.outputs(loaded, other)) == 0
