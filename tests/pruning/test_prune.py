"""`prune` from end to end: what it keeps, what it never touches, and what it says of bad input."""

from __future__ import annotations

import copy
import math
from typing import Any

import oracle
import pytest
import torch
import within
import zoo
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

import niwaki
from niwaki.core.errors import (
    BudgetError,
    NiwakiError,
    SettingError,
    SurgeryError,
    TraceError,
    UnknownNameError,
)

pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)
    )


def pruned(name: str, **settings: Any) -> Any:
    model = zoo.build(name)
    return niwaki.prune(model, zoo.inputs(model, 1), **settings).model


# the result


def test_a_first_call_needs_a_model_an_example_and_nothing_else() -> None:
    model, x = mlp(), torch.randn(3, 6)
    result = niwaki.prune(model, x)
    assert type(result.model) is nn.Sequential
    assert result.model(x).shape == model(x).shape
    assert result.plan.kept == {"0": result.plan["0"].units, "2": result.plan["2"].units}
    assert [len(kept.units) for kept in result.plan.values()] == [6, 5]
    assert result.record.before.params == 12 * 7 + 10 * 13 + 4 * 11
    assert result.record.after.params == 6 * 7 + 5 * 7 + 4 * 6
    assert result.record.before.macs == 6 * 12 + 12 * 10 + 10 * 4
    assert result.record.settings["criterion"] == "l2"
    assert result.record.settings["budget"] == "channels=0.5"
    assert set(result.record.seconds) == {
        "trace",
        "score",
        "select",
        "compensate",
        "shrink",
        "check",
        "measure",
    }
    assert "parameters" in str(result)
    assert "2.55× less" in str(result)


def test_it_is_its_steps() -> None:
    model, x = mlp(), torch.randn(3, 6)
    result = niwaki.prune(
        model, x, criterion="l1", budget=0.3, compensation="merge:threshold=0.1", scope="global"
    )
    graph = niwaki.trace(model, x)
    plan = niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l1")),
        0.3,
        niwaki.Selection(scope="global"),
    ).plan
    mixings = niwaki.compensate(niwaki.Cut(graph, plan), "merge:threshold=0.1").mixings
    by_hand = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
    assert plan.units == result.plan.units
    assert all(
        torch.equal(a, b)
        for a, b in zip(by_hand.parameters(), result.model.parameters(), strict=True)
    )


@pytest.mark.parametrize(("scope", "criterion"), [("local", "l2"), ("global", "random")])
def test_a_default_device_is_not_the_models(
    scope: Any, criterion: str, quick_latency: None
) -> None:
    """Whatever new tensors are made on elsewhere (a GPU, or no device at all), the model stays
    where it is.
    """
    model, x = mlp(), torch.randn(3, 6)
    expected = niwaki.prune(model, x, criterion=criterion, scope=scope)
    with torch.device("meta"):
        result = niwaki.prune(model, x, criterion=criterion, scope=scope)
    assert result.plan == expected.plan
    assert all(
        torch.equal(a, b)
        for a, b in zip(result.model.parameters(), expected.model.parameters(), strict=True)
    )


def test_the_seed_is_all_that_chance_depends_on() -> None:
    model, x = mlp(), torch.randn(3, 6)
    torch.manual_seed(1)
    one = niwaki.prune(model, x, criterion="random", seed=7)
    torch.manual_seed(2)
    two, three = (
        niwaki.prune(model, x, criterion="random", seed=7),
        niwaki.prune(model, x, criterion="random", seed=8),
    )
    assert one.plan == two.plan
    assert one.plan != three.plan


def test_accuracy_is_measured_where_there_is_data() -> None:
    model, data = mlp(), [(torch.randn(5, 6), torch.randint(4, (5,))) for _ in range(2)]
    for given in (data, lambda: iter(data)):
        record = niwaki.prune(model, data[0][0], evaluate=given).record
        assert record.before.accuracy == niwaki.evaluate(model, data).accuracy
        assert record.after.accuracy is not None
    with pytest.raises(SettingError, match="gone through only once"):
        niwaki.prune(model, data[0][0], evaluate=iter(data))


def test_nothing_to_remove_is_the_same_network() -> None:
    model, x = mlp(), torch.randn(3, 6)
    result = niwaki.prune(model, x, budget=0)
    assert result.plan.kept == {}
    assert torch.equal(result.model(x), model(x))
    assert result.model is not model


def test_a_pruned_network_can_be_pruned_again_and_trained() -> None:
    model, x = mlp(), torch.randn(3, 6)
    twice = niwaki.prune(niwaki.prune(model, x).model, x).model
    assert [layer.out_features for layer in twice.children() if isinstance(layer, nn.Linear)] == [
        3,
        2,
        4,
    ]
    optimizer = torch.optim.SGD(twice.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in twice.parameters()]
    twice(x).square().sum().backward()
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, twice.parameters(), strict=True))


def test_two_runs_share_nothing() -> None:
    model, x = mlp(), torch.randn(3, 6)
    first = niwaki.prune(model, x).model
    second = niwaki.prune(model, x).model
    with torch.no_grad():
        within.tensor(first, "0.weight").zero_()
    assert within.tensor(second, "0.weight").abs().sum() > 0
    assert within.tensor(model, "0.weight").abs().sum() > 0
    storages = [
        {p.untyped_storage().data_ptr() for p in m.parameters()} for m in (model, first, second)
    ]
    assert len(set.union(*storages)) == sum(map(len, storages))


# what stays as it was


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_precision_stays(dtype: torch.dtype) -> None:
    model = zoo.build("ConvNoBias", dtype)
    result = niwaki.prune(model, zoo.inputs(model, 1)).model
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in result.state_dict().items()} == kinds


def test_parts_of_other_precision_stay_so() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = (
                nn.Linear(6, 12).bfloat16(),
                nn.BatchNorm1d(12),
                nn.Linear(12, 3).double(),
            )

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(torch.relu(self.norm(self.a(x.bfloat16()).float())).double())
            return out

    result = niwaki.prune(Mixed(), torch.randn(3, 6)).model
    assert [p.dtype for p in result.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2 + [
        torch.float64
    ] * 2
    assert within.tensor(result, "a.weight").shape == (6, 6)


@pytest.mark.parametrize("frozen", [(), ("0",), ("0", "2", "4")])
def test_what_is_frozen_stays_frozen(frozen: tuple[str, ...]) -> None:
    model = mlp()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    result = niwaki.prune(model, torch.randn(3, 6)).model
    assert [p.requires_grad for p in result.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert within.tensor(result, "0.weight").shape == (6, 6)
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in result.parameters())


def test_modes_and_hooks_stay() -> None:
    model, seen = mlp().train(), []
    model[2].eval()
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model[4].register_forward_pre_hook(lambda module, args: (2 * args[0],))
    x = torch.randn(3, 6)
    result = niwaki.prune(model, x, compensation="none").model
    assert [m.training for m in result.modules()] == [m.training for m in model.modules()]
    assert [m.training for m in model] == [True, True, False, True, True]
    seen.clear()
    result(x)
    assert seen == [(3, 6)]
    graph = niwaki.trace(model, x)
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l2")), 0.5).plan
    assert (
        oracle.distance(
            oracle.outputs(oracle.masked(graph, plan, {}), x), oracle.outputs(result, x)
        )
        < 1e-6
    )


def test_ties_stay_tied() -> None:
    tied = pruned("TiedWeights")
    assert tied.c.weight is tied.b.weight
    assert tied.b.weight.shape == (4, 4)
    shared = pruned("SharedEmbedding")
    assert shared.decode.weight is shared.embed.weight
    assert shared.decode.weight.shape == (11, 4)


def test_memory_layout_stays() -> None:
    model = zoo.build("ConvNoBias")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
    result: Any = niwaki.prune(
        model, zoo.inputs(model, 1).to(memory_format=torch.channels_last)
    ).model
    assert result.body[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert not result.body[3].weight.is_contiguous()
    plain = pruned("ConvNoBias")
    assert plain.body[3].weight.is_contiguous()


def test_attributes_follow() -> None:
    conv = pruned("ConvNoBias").body
    assert (
        conv[0].in_channels,
        conv[0].out_channels,
        conv[3].in_channels,
        conv[3].out_channels,
    ) == (3, 4, 4, 5)
    assert (conv[1].num_features, conv[4].num_features, conv[6][2].in_features) == (4, 5, 5)
    assert (conv[1].eps, conv[1].momentum, conv[3].padding_mode) == (1e-3, 0.3, "reflect")
    depthwise = pruned("DepthwiseBlock").body
    assert (depthwise[1].groups, depthwise[1].in_channels, depthwise[1].out_channels) == (4, 4, 4)
    grouped = pruned("GroupedConv").body
    assert (grouped[2].groups, grouped[2].in_channels, grouped[2].weight.shape[1]) == (2, 6, 3)
    transposed = pruned("ConvTranspose").body
    assert (transposed[2].in_channels, transposed[2].out_channels) == tuple(
        transposed[2].weight.shape[:2]
    )
    assert (transposed[2].stride, transposed[2].output_padding) == ((2, 2), (1, 1))
    norm = pruned("LayerNormMlp").body
    assert norm[1].normalized_shape == (4,)
    groups = pruned("GroupNormConv").body
    assert (
        groups[1].num_groups,
        groups[1].num_channels,
        groups[4].num_groups,
        groups[4].num_channels,
    ) == (2, 8, 4, 4)
    assert pruned("SharedEmbedding").embed.embedding_dim == 4
    assert pruned("PReluChannels").body[1].num_parameters == 4
    assert pruned("UnflattenModule").body[2].unflattened_size == (3, 3, 3)
    assert pruned("SplitByAttribute").parts == [2, 4]
    assert sum(pruned("PaddedShortcut").block.shortcut.pads) < 5


class Heads(nn.Module):
    """Attention that asks for its sizes; one attribute repeats a size and means another thing."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.layers_around, self.rows = 4, 4, 12
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))
        self.extra = nn.Parameter(torch.randn(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, 3)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        seen = (torch.softmax(q @ k.transpose(-1, -2), -1) @ v).transpose(1, 2).flatten(2)
        out: Tensor = self.out(seen)
        return out


def test_only_what_the_code_reads_is_taken_for_a_size() -> None:
    model = Heads().eval()
    result = niwaki.prune(model, torch.randn(2, 5, 12), budget=0.5, compensation="none", only="q")
    pruned: Any = result.model
    assert (pruned.num_heads, pruned.layers_around, pruned.rows) == (2, 4, 12)
    assert result.plan.sizes == {"": {"num_heads": 2}}
    assert model.num_heads == 4


def test_a_plan_sets_sizes_and_nothing_else() -> None:
    model, x = Heads().eval(), torch.randn(2, 5, 12)
    plan = niwaki.prune(model, x, compensation="none", only="q").plan
    graph = niwaki.trace(model, x)
    again: Any = niwaki.shrink(niwaki.Cut(graph, niwaki.Plan.from_json(plan.to_json())))
    assert again.num_heads == 2
    for sizes in (
        {"": {"forward": 2}},
        {"q": {"weight": 2}},
        {"none": {"num_heads": 2}},
        {"": {"num_heads": (2, 2)}},
    ):
        with pytest.raises(
            niwaki.core.errors.SurgeryError, match="which is no size that the model keeps"
        ):
            niwaki.shrink(niwaki.Cut(graph, niwaki.Plan(plan.units, sizes)))
    for wrong in ("[1]", '{"": 3}', '{"": {"num_heads": "2"}}', '{"": {"num_heads": true}}'):
        text = plan.to_json().replace('{"": {"num_heads": 2}}', wrong)
        with pytest.raises(niwaki.core.errors.SettingError, match="size"):
            niwaki.Plan.from_json(text)


def test_numbers_that_are_no_sizes_stay() -> None:
    """An attribute of the same value as a width, in a module that passes no size on."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depth, self.names, self.width = 12, ["a"] * 12, torch.full((12,), 12)
            self.fc = nn.Linear(6, 12)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.fc(x))

    model = nn.Sequential(Block(), nn.Linear(12, 3))
    result: Any = niwaki.prune(model, torch.randn(2, 6)).model
    assert result[0].fc.out_features == 6
    assert (result[0].depth, len(result[0].names)) == (12, 12)
    assert torch.equal(result[0].width, torch.full((12,), 12))


def test_buffers_that_are_not_saved_are_cut_too() -> None:
    model = zoo.build("HiddenBuffers")
    result: Any = niwaki.prune(model, zoo.inputs(model, 1)).model
    assert result.factor.shape == (4,)
    assert "factor" not in result.state_dict()
    assert result.mask.shape == (4, 4)
    assert (int(within.tensor(model, "calls")), int(result.calls)) == (0, 0)
    assert model.last is None
    assert result.last is None


def test_an_old_gradient_does_not_outlive_its_shape() -> None:
    model, x = mlp(), torch.randn(3, 6)
    model(x).sum().backward()
    result: Any = niwaki.prune(model, x).model
    assert all(p.grad is None or p.grad.shape == p.shape for p in result.parameters())
    assert model[0].weight.grad is not None


def test_outputs_in_any_wrapping_keep_their_sizes() -> None:
    for name in ("OutputTwice", "DataclassOutput", "ObjectOutput"):
        model = zoo.build(name)
        x = zoo.inputs(model, 1)
        result = niwaki.prune(model, x).model
        assert [t.shape for t in oracle.outputs(result, x)] == [
            t.shape for t in oracle.outputs(model, x)
        ]


def test_a_group_that_cannot_follow_is_left_whole_and_the_others_go() -> None:
    model = zoo.build("PaddedShortcutInCode")
    result = niwaki.prune(model, zoo.inputs(model, 1))
    left = {name: note for name, note in result.notes.items() if note.startswith("left whole: ")}
    assert {"block.conv2", "block.conv2#2"} <= set(left)
    assert all("holds a size that is not read from a tensor" in note for note in left.values())
    assert len(result.plan["block.conv1"].units) == 3
    assert not set(result.plan) & set(left)
    assert any(note.startswith("block.conv2: left whole") for note in result.record.notes)


class Bounded(nn.Module):
    """An operator that no table of channels has a line for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.b(torch.renorm(self.a(x), 2, 0, 1.0))))
        return out


def test_unknown_operators_are_named_and_what_they_touch_stays() -> None:
    x = torch.randn(3, 6)
    graph = niwaki.trace(Bounded(), x)
    assert "aten.renorm" in graph.unknown
    assert "operators that niwaki does not know: aten.renorm (1×)" in str(graph)
    result = niwaki.prune(Bounded(), x)
    assert set(result.plan) == {"b"}
    assert any(
        note.startswith("operators unknown to niwaki") and "aten.renorm" in note
        for note in result.record.notes
    )


# bad input


def raising(model: nn.Module, x: Any, error: type[NiwakiError], **settings: Any) -> str:
    """What prune says; the model is as it was."""
    state = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not nn.parameter.is_lazy(tensor)
    }
    modes = [module.training for module in model.modules()]
    with pytest.raises(error) as caught:
        niwaki.prune(model, x, **settings)
    assert modes == [module.training for module in model.modules()]
    assert all(
        torch.equal(state[name].nan_to_num(), model.state_dict()[name].nan_to_num())
        for name in state
    )
    return str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    model = mlp()
    with torch.no_grad():
        within.tensor(model, "2.weight")[0, 0] = value
    assert "2.weight holds NaN or infinite values" in raising(model, torch.randn(3, 6), TraceError)


def test_statistics_that_are_no_numbers_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    within.tensor(model, "1.running_var")[0] = math.nan
    assert "1.running_var holds NaN" in raising(model, torch.randn(3, 6), TraceError)


def test_a_forward_that_raises_names_the_module_and_its_shapes() -> None:
    message = raising(nn.Sequential(mlp(), nn.Linear(5, 2)), torch.randn(3, 6), TraceError)
    assert (
        "1 (Linear) on (3, 4) raised: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x2)"
        in message
    )
    assert "0.0 (Linear) on (3, 7) raised" in raising(
        nn.Sequential(mlp()), torch.randn(3, 7), TraceError
    )


def test_inputs_elsewhere_or_of_another_precision_are_refused() -> None:
    assert "is torch.float64 but the model torch.float32; use inputs.to(torch.float32)" in raising(
        mlp(), torch.randn(3, 6).double(), TraceError
    )
    assert "on meta but the model on cpu; use inputs.to('cpu')" in raising(
        mlp(), torch.randn(3, 6, device="meta"), TraceError
    )
    assert "got list" in raising(mlp(), [torch.randn(3, 6)], TraceError)
    assert "got dict" in raising(mlp(), {0: torch.randn(3, 6)}, TraceError)


def test_models_that_cannot_be_read_are_refused_with_the_way_out() -> None:
    x = torch.randn(3, 6)
    with pytest.raises(TraceError, match="is scripted"):
        niwaki.prune(torch.jit.trace(mlp(), x), x)
    with pytest.raises(
        TraceError, match=r"1 is scripted.*put the module that it was made from in its place"
    ):
        niwaki.prune(nn.Sequential(nn.Linear(6, 6), torch.jit.script(mlp())), x)
    with pytest.raises(TraceError, match=r"is compiled; pass the original \(model._orig_mod\)"):
        niwaki.prune(torch.compile(mlp()), x)  # type: ignore[arg-type]  # refused
    sparse = mlp()
    sparse[0].weight = nn.Parameter(within.tensor(sparse, "0.weight").detach().to_sparse())
    with pytest.raises(TraceError, match=r"0.weight is sparse; prune the dense float model"):
        niwaki.prune(sparse, x)
    quantised = mlp()
    quantised.register_buffer(
        "table", torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)
    )
    with pytest.raises(TraceError, match="table is quantised"):
        niwaki.prune(quantised, x)
    lazy = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))
    assert "0.weight has no shape yet" in raising(lazy, x, TraceError)


def test_wrapped_and_sharded_models_are_refused_with_the_way_out() -> None:
    x = torch.randn(3, 6)
    assert "is wrapped in DataParallel; prune the module inside (module)" in raising(
        nn.DataParallel(mlp()), x, TraceError
    )
    inside = nn.Sequential(nn.DataParallel(mlp()))
    assert "0 is wrapped in DataParallel; prune the module inside (0.module)" in raising(
        inside, x, TraceError
    )
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # torch has it
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        sharded = mlp()
        for layer in (sharded[0], sharded[2]):
            layer.weight = nn.Parameter(
                distribute_tensor(within.tensor(layer, "weight").detach(), mesh)
            )
        assert "0.weight is a DTensor, of which this process holds a part" in raising(
            sharded, x, TraceError
        )
    finally:
        torch.distributed.destroy_process_group()


def test_a_forward_that_needs_training_mode_says_so() -> None:
    class OnlyInTraining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError("no inference here")
            out: Tensor = self.fc(x)
            return out

    message = raising(OnlyInTraining().train(), torch.randn(3, 6), TraceError)
    assert "cannot be run on the example inputs (it is run in evaluation mode)" in message
    assert "no inference here" in message


def test_a_parameter_that_another_model_uses_stays_its_own() -> None:
    model = mlp()
    stranger = nn.Linear(6, 12)
    stranger.weight = within.tensor(model, "0.weight")
    whole = stranger.weight.detach().clone()
    niwaki.prune(model, torch.randn(3, 6), budget=0.5)
    assert stranger.weight is model[0].weight
    assert torch.equal(stranger.weight, whole)


def test_random_numbers_in_evaluation_mode_are_the_same_on_both_sides() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(torch.relu(self.a(x + torch.randn_like(x)))) + torch.rand(3)
            return out

    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = niwaki.prune(
        Noisy().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), budget=0.5
    )
    assert len(result.plan["a"].units) == 6
    assert not torch.equal(
        before, torch.get_rng_state()
    )  # the model's own weights took some; pruning took none
    after = torch.get_rng_state()
    niwaki.prune(
        result.model, torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), budget=0.5
    )
    assert torch.equal(after, torch.get_rng_state())


def test_a_model_that_hides_its_outputs_is_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            y = self.fc(x)
            return lambda: y

    message = raising(Hidden(), torch.randn(3, 6), TraceError)
    assert "no tensor can be seen in what the model returns (function)" in message


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.stream = mlp(), (number for number in range(3))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x)
            return out

    assert "the model cannot be copied" in raising(Locked(), torch.randn(3, 6), SurgeryError)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budget": math.nan}, BudgetError, "must be in [0, 1)"),
        ({"budget": 1.0}, BudgetError, "must be in [0, 1)"),
        ({"budget": "params=0.999", "min_units": 4}, BudgetError, "at most"),
        ({"criterion": "l7"}, UnknownNameError, "unknown criterion 'l7'; did you mean"),
        ({"compensation": "merg"}, UnknownNameError, "did you mean 'merge'?"),
        ({"compensation": "merge:threshold=x"}, SettingError, "merge:threshold must be float"),
        (
            {"only": "conv*"},
            SettingError,
            "no group has a layer named like 'conv*'; groups are: 0, 2",
        ),
        ({"scope": "locale"}, UnknownNameError, "did you mean 'local' or 'global'?"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, Any], error: type[NiwakiError], message: str
) -> None:
    assert message in raising(mlp(), torch.randn(3, 6), error, **settings)


def test_a_model_without_anything_to_prune_says_where_to_look() -> None:
    message = raising(nn.Linear(6, 3), torch.randn(2, 6), BudgetError)
    assert message == (
        "no group of channels can be pruned; print(niwaki.trace(model, inputs)) says what is "
        "frozen and why"
    )


def test_the_reason_for_leaving_all_whole_is_not_lost() -> None:
    model = zoo.build("SlicedChannels")
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    with pytest.raises(NiwakiError, match="holds a size that is not read from a tensor"):
        niwaki.prune(
            model,
            zoo.inputs(model, 1),
            only=tuple(group.name for group in graph.groups),
            budget="params=0.7",
        )


def test_the_table_of_groups_is_readable() -> None:
    lines = str(niwaki.trace(zoo.build("IdentityShortcut"), torch.randn(1, 3, 8, 8))).splitlines()
    assert lines[0].split() == ["group", "units", "params", "MACs", "written", "by", "read", "by"]
    assert lines[2].split()[:2] == ["stem", "8"]
    assert any(line.split()[:2] == ["block.conv1", "6"] for line in lines)
    assert any("model output" in line for line in lines)


def test_the_model_may_be_copied_while_it_is_traced_twice() -> None:
    """Nothing of the first trace is kept alive in the model."""
    model, x = mlp(), torch.randn(3, 6)
    before = set(vars(model[0]))
    first = niwaki.trace(model, x)
    twin = copy.deepcopy(model)
    second = niwaki.trace(twin, x)
    assert set(vars(model[0])) == before
    assert [g.name for g in first.groups] == [g.name for g in second.groups]


class Tokens(nn.Module):
    """Shortens the rows of its table as it reads them, and sets a weight anew in every run."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.outer = (
            nn.Embedding(9, 6, max_norm=0.5),
            nn.Linear(6, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        self.outer.bias.data = self.outer.bias.data / 2
        out: Tensor = self.outer(torch.relu(self.inner(self.table(x))))
        return out


def test_parameters_that_a_forward_writes_into_are_given_back() -> None:
    torch.manual_seed(0)
    model = Tokens()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for verb in (niwaki.trace, niwaki.prune):
        with pytest.raises(niwaki.NiwakiError, match=r"writes into its parameter outer\.bias"):
            verb(model, torch.randint(0, 9, (2, 5)))
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Clamped(nn.Module):
    """A scale that forward keeps within its limits, as CLIP's; it is within them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 12), nn.Linear(12, 3)
        self.scale = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.scale.data = self.scale.data.clamp(0, 1)
        out: Tensor = self.outer(self.inner(x).relu() * self.scale)
        return out


def test_a_parameter_that_is_set_to_what_it_was_is_cut_like_any() -> None:
    torch.manual_seed(0)
    small: Any = niwaki.prune(Clamped(), torch.randn(2, 6), 0.5).model
    assert small.scale.shape == (6,)
    assert small.outer.weight.shape == (3, 6)


class Mixed(nn.Module):
    """Its hidden layers compute in bfloat16; its output is float32, or complex."""

    def __init__(self, complex_output: bool) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 4)
        self.complex_output = complex_output

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.complex_output):
            x = torch.relu(self.second(torch.relu(self.first(x))))
        x = self.last(x.float())
        return torch.view_as_complex(x.view(-1, 2, 2)) if self.complex_output else x


@pytest.mark.parametrize("complex_output", [True, False])
def test_the_check_allows_for_the_rounding_of_the_coarsest_numbers_in_the_run(
    complex_output: bool,
) -> None:
    torch.manual_seed(0)
    model = Mixed(complex_output).eval()
    result = niwaki.prune(model, torch.randn(4, 6), compensation="moments")
    assert niwaki.count_params(result.model) < niwaki.count_params(model)
