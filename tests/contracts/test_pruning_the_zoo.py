"""Every model × criterion × compensation × scope: either a smaller network that is right, or one
sentence that says why not.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import oracle
import pytest
import torch
import zoo
from torch import nn
from torch.utils._pytree import tree_leaves

import niwaki
from niwaki.core.errors import SurgeryError
from niwaki.graph.offsets import offsets
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.cut import Cut
from niwaki.proof.reference import reference_outputs

pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")

# models of which perhaps nothing at all can be pruned, and what the one sentence must speak of; any
# other must be pruned
REFUSED = {
    "RegroupedView": "no group of channels",
    "HardCodedView": "holds a size that is not read from a tensor",
    "OuterProduct": "no group of channels",
    "CountedChannels": "the first layer that differs is the model (aten.div)",
    "FusedQkvOfThreeHeads": "holds a size that is not read from a tensor",
    "GroupedQueryAttention": "holds a size that is not read from a tensor",
}
# models of which some groups cannot follow, because their code holds or derives a size of its own
SIZES_IN_CODE = {
    "EncoderLayer",
    "ChannelShuffle",
    "ChannelShuffleThree",
    "HardCodedModule",
    "MultiheadAttention",
    "PaddedShortcutInCode",
    "SlicedChannels",
}
SCOPES = ("local", "global")
LOW_PRECISION = {"Float16": 2e-2, "Bfloat16": 1e-1}
# every model meets the compensations that are used most, and a third of the others, each time with
# another criterion and scope, so that all pairs of criterion and compensation are met by some models
USUAL = {"none", "merge", "moments", "reconstruct"}
CHOOSING = ("l2", "l1", "l2-gm", "random", "bn-scale", "reconstruct", "fold", "lamp", "taylor")
SETTINGS = [
    (name, CHOOSING[(row + column) % len(CHOOSING)], compensation, SCOPES[(row + column) % 2])
    for row, name in enumerate(zoo.MODELS)
    for column, compensation in enumerate(COMPENSATIONS)
    if compensation in USUAL or (row + column) % 3 == 0
] + [(name, "mint", "none", "global") for name in list(zoo.MODELS)[::6]]  # half a second a model
QUICK = {"mint": "mint:groups=2,samples=24"}


def build(name: str) -> zoo.Trap:
    return zoo.build(name, None if name in LOW_PRECISION else torch.float64)


def as_it_is(model: nn.Module) -> dict[str, Any]:
    """All that pruning may not change in the model that it is given."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "tensors": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in model.modules()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "attributes": [
            {
                key: value
                for key, value in vars(module).items()
                if not isinstance(value, (dict, torch.Tensor))
            }
            for module in model.modules()
        ],
        "random": torch.get_rng_state(),
        "loose": [
            id(value)
            for m in model.modules()
            for value in vars(m).values()
            if isinstance(value, torch.Tensor)
        ],
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@pytest.mark.parametrize(("name", "criterion", "compensation", "scope"), SETTINGS)
def test_smaller_and_right_or_refused_in_one_sentence(
    name: str, criterion: str, compensation: str, scope: Any
) -> None:
    model = build(name)
    next(iter(model.children())).train()  # modes differ within the model
    example, other = zoo.inputs(model, 1), zoo.inputs(model, 2)
    given = copy.deepcopy(example)
    before = as_it_is(model)
    result = refusal = None
    try:
        result = niwaki.prune(
            model,
            example,
            criterion=QUICK.get(criterion, criterion),
            compensation=compensation,
            scope=scope,
            calibration=zoo.calibration(model),
        )
    except niwaki.NiwakiError as error:
        refusal = str(error)
    after = as_it_is(model)
    assert all(same(before[key], after[key]) for key in before), [
        key for key in before if not same(before[key], after[key])
    ]
    assert all(map(torch.equal, tree_leaves(example), tree_leaves(given)))
    if result is None:
        assert refusal is not None
        unscaled = criterion == "bn-scale" and (
            "bn-scale reads normalisation scales" in refusal or "has no scores" in refusal
        )
        assert unscaled or REFUSED.get(name, "never") in refusal
        assert "\n" not in refusal
        return
    assert niwaki.count_params(result.model) < niwaki.count_params(model)
    assert [module.training for module in result.model.modules()] == before["modes"]
    known = dict(model.named_parameters())
    new = {name for name, _ in result.model.named_parameters()} - known.keys()
    assert all(name.endswith("bias") for name in new)  # a constant for a layer without one
    trainable = [
        parameter.requires_grad
        for name, parameter in result.model.named_parameters()
        if name in known
    ]
    assert trainable == before["trainable"]

    graph = niwaki.trace(model, other)
    mixings = result.cut.mixings  # made anew they would be of these inputs
    tolerance = LOW_PRECISION.get(name, 1e-10)
    assert (
        niwaki.check(niwaki.Cut(graph, result.plan, mixings), result.model).difference < tolerance
    )
    if oracle.is_simple(graph, result.plan):
        wanted = oracle.outputs(oracle.masked(graph, result.plan, mixings), other)
        assert oracle.distance(wanted, oracle.outputs(result.model, other)) < tolerance


def test_most_of_the_zoo_is_held_against_an_oracle_of_its_own() -> None:
    """The check and the surgery stand on one inference; this many models are compared by plain
    execution besides.
    """
    simple = []
    for name in zoo.MODELS:
        model = build(name)
        graph = niwaki.trace(model, zoo.inputs(model, 1))
        simple.append(bool(graph.groups) and all(map(oracle.plainly_read, graph.groups)))
    assert sum(simple) >= len(simple) * 2 // 3


@pytest.mark.parametrize("name", [name for name in zoo.MODELS if name not in REFUSED])
def test_groups_and_plan_are_the_same_in_a_second_run(name: str) -> None:
    first, second = build(name), build(name)
    graphs = [
        niwaki.trace(model, zoo.inputs(model, seed)) for seed, model in enumerate((first, second))
    ]
    plans = [
        niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5).plan for graph in graphs
    ]
    assert str(graphs[0]) == str(graphs[1])
    assert plans[0] == plans[1]


@pytest.mark.parametrize("name", [name for name in zoo.MODELS if name not in LOW_PRECISION])
def test_a_shift_goes_into_a_bias_a_normalisation_or_a_new_bias_or_is_refused(name: str) -> None:
    model = build(name)
    x = zoo.inputs(model, 1)
    graph = niwaki.trace(model, x)
    for group in (group for group in graph.groups if group.fold_obstacle is None):
        units = tuple(range(1, group.width, 2))
        plan = niwaki.Plan({group.name: niwaki.core.plan.Kept(group.width, units)})
        generator = torch.Generator().manual_seed(0)

        def mixing(
            width: int = group.width, left: int = len(units), generator: Any = generator
        ) -> niwaki.Mixing:
            matrix = torch.randn(width, left, generator=generator, dtype=torch.float64)
            return niwaki.Mixing(
                matrix, torch.randn(width, generator=generator, dtype=torch.float64)
            )

        readers = sorted({piece.tensor for piece in group.of_role(niwaki.graph.Role.CONSUMER)})
        mixings = {group.name: dataclasses.replace(mixing(), readers={readers[0]: mixing()})}
        places, obstacle = offsets(graph, group.name)
        if obstacle is not None:
            with pytest.raises(
                SurgeryError, match="has a shift, which its consumers cannot take up"
            ):
                niwaki.shrink(niwaki.Cut(graph, plan, mixings))
            continue
        assert {place.weight for place in places} == set(readers)
        try:
            pruned = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
            difference = niwaki.check(niwaki.Cut(graph, plan, mixings), pruned).difference
        except SurgeryError:
            assert name in {*SIZES_IN_CODE, *REFUSED}, group.name
            continue
        assert difference < 1e-10
        if oracle.plainly_read(group) and all(
            place.kind != "bias" or place.tensor.endswith("bias") for place in places
        ):
            wanted = oracle.outputs(oracle.masked(graph, plan, mixings), x)
            assert oracle.distance(wanted, oracle.outputs(pruned, x)) < 1e-10, group.name


@pytest.mark.parametrize(
    "name", [name for name in zoo.MODELS if name not in {*REFUSED, *LOW_PRECISION}]
)
def test_any_mixing_can_be_folded_where_a_group_says_so(name: str) -> None:
    """A compensation is a matrix a group: surgery takes every matrix, not only those of today's
    methods.
    """
    model = build(name)
    x = zoo.inputs(model, 1)
    graph = niwaki.trace(model, x)
    free = [group for group in graph.groups if oracle.plainly_read(group)]
    proved, unfollowed = 0, []
    for group in free:  # one by one: some models' code cannot follow every group
        units = tuple(range(1, group.width, 2))
        plan = niwaki.Plan({group.name: niwaki.core.plan.Kept(group.width, units)})
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn(group.width, len(units), generator=generator, dtype=torch.float64)
        mixings = {group.name: niwaki.Mixing(matrix)}
        wanted = oracle.outputs(oracle.masked(graph, plan, mixings), x)
        assert oracle.distance(wanted, reference_outputs(Cut(graph, plan, mixings), x)) < 1e-12, (
            group.name
        )
        pruned = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
        if oracle.runs(pruned, x) and oracle.distance(wanted, oracle.outputs(pruned, x)) < 1e-10:
            assert niwaki.check(niwaki.Cut(graph, plan, mixings), pruned).difference < 1e-10, (
                group.name
            )
            proved += 1
        else:
            unfollowed.append(group.name)
            with pytest.raises(SurgeryError):
                niwaki.check(niwaki.Cut(graph, plan, mixings), pruned)
    assert not unfollowed or name in SIZES_IN_CODE, unfollowed
    assert proved or name in SIZES_IN_CODE or not free
