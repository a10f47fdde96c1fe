"""The proof is itself put to the proof: whatever is wrong with a pruned network, `check` says so
and names the layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
import within
import zoo
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SurgeryError
from niwaki.methods.base.cut import Cut
from niwaki.proof.reference import reference_outputs

pytestmark = pytest.mark.usefixtures("one_thread")


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )
    for key, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(
                torch.rand_like(buffer) + 0.5 if "var" in key else torch.randn_like(buffer)
            )
    return model.double().eval()


KEPT = {"0": (1, 2, 5), "3": (0, 3, 4), "6": (2, 3, 5, 9)}


def plan() -> niwaki.Plan:
    kept = niwaki.core.plan.Kept
    return niwaki.Plan({"0": kept(8, KEPT["0"]), "3": kept(6, KEPT["3"]), "6": kept(10, KEPT["6"])})


def masked_by_hand(model: nn.Sequential) -> nn.Sequential:
    """The chain with the columns of dropped units zeroed where they are read; no code of niwaki is
    in it.
    """
    model = copy.deepcopy(model)
    with torch.no_grad():
        for channel in set(range(8)) - set(KEPT["0"]):
            within.tensor(model, "3.weight")[:, channel] = 0
        for channel in set(range(6)) - set(KEPT["3"]):
            for place in range(9):
                within.tensor(model, "6.weight")[:, channel * 9 + place] = 0
        for unit in set(range(10)) - set(KEPT["6"]):
            within.tensor(model, "8.weight")[:, unit] = 0
    return model


def cut_by_hand(model: nn.Sequential) -> nn.Sequential:
    """The chain with smaller layers, made and filled by hand."""
    a, b, c = (list(KEPT[name]) for name in ("0", "3", "6"))
    columns = [channel * 9 + place for channel in b for place in range(9)]
    small = (
        nn.Sequential(
            nn.Conv2d(3, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 3, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(27, 4),
            nn.ReLU(),
            nn.Linear(4, 4),
        )
        .double()
        .eval()
    )
    own, whole = small.state_dict(), model.state_dict()
    own["0.weight"].copy_(whole["0.weight"][a])
    own["0.bias"].copy_(whole["0.bias"][a])
    for key in ("weight", "bias", "running_mean", "running_var"):
        own[f"1.{key}"].copy_(whole[f"1.{key}"][a])
    own["3.weight"].copy_(whole["3.weight"][b][:, a])
    own["3.bias"].copy_(whole["3.bias"][b])
    own["6.weight"].copy_(whole["6.weight"][c][:, columns])
    own["6.bias"].copy_(whole["6.bias"][c])
    own["8.weight"].copy_(whole["8.weight"][:, c])
    own["8.bias"].copy_(whole["8.bias"])
    return small


def traced(model: nn.Module) -> niwaki.Graph:
    return niwaki.trace(
        model, torch.randn(3, 3, 7, 7, generator=torch.Generator().manual_seed(1)).double()
    )


def test_surgery_and_reference_are_what_a_hand_makes_of_it() -> None:
    model = chain()
    graph = traced(model)
    pruned = niwaki.shrink(niwaki.Cut(graph, plan()))
    by_hand = cut_by_hand(model)
    assert {
        name: tensor.tolist()
        for name, tensor in pruned.state_dict().items()
        if "num_batches" not in name
    } == {
        name: tensor.tolist()
        for name, tensor in by_hand.state_dict().items()
        if "num_batches" not in name
    }
    x = torch.randn(5, 3, 7, 7).double()
    wanted = masked_by_hand(model)(x)
    torch.testing.assert_close(pruned(x), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_hand(x), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        reference_outputs(Cut(graph, plan()), graph.inputs)[0], masked_by_hand(model)(graph.inputs)
    )
    torch.testing.assert_close(oracle.masked(graph, plan(), {})(x), wanted, rtol=1e-12, atol=1e-12)
    assert niwaki.check(niwaki.Cut(graph, plan()), pruned).difference < 1e-12


def other_channel(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "0.weight")[1] = within.tensor(model, "0.weight")[7]


def other_order(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "3.weight").copy_(within.tensor(small, "3.weight")[[1, 0, 2]])


def other_columns(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "6.weight").copy_(
        within.tensor(model, "6.weight")[list(KEPT["6"])][:, :27]
    )


def a_weight_a_little_off(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "3.weight")[0, 1, 1, 1] += 1e-3


def a_bias_forgotten(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "3.bias").zero_()


def other_statistics(small: nn.Sequential, model: nn.Sequential) -> None:
    within.tensor(small, "1.running_mean").copy_(within.tensor(model, "1.running_mean")[:3])


def other_epsilon(small: nn.Sequential, model: nn.Sequential) -> None:
    within.part(small, "1", nn.BatchNorm2d).eps = 1e-2


CORRUPTIONS: list[tuple[Callable[[nn.Sequential, nn.Sequential], None], str]] = [
    (other_channel, "0"),
    (other_order, "3"),
    (other_columns, "6"),
    (a_weight_a_little_off, "3"),
    (a_bias_forgotten, "3"),
    (other_statistics, "1"),
    (other_epsilon, "1"),
]


@pytest.mark.parametrize(
    ("corrupt", "layer"), CORRUPTIONS, ids=lambda case: getattr(case, "__name__", str(case))
)
def test_a_corrupted_network_is_refused_by_the_name_of_its_layer(
    corrupt: Callable[..., None], layer: str
) -> None:
    model = chain()
    graph = traced(model)
    pruned: Any = niwaki.shrink(niwaki.Cut(graph, plan()))
    with torch.no_grad():
        corrupt(pruned, model)
    with pytest.raises(SurgeryError, match=f"the first layer that differs is {layer} ") as caught:
        niwaki.check(niwaki.Cut(graph, plan()), pruned)
    assert caught.value.layer == layer


def test_a_forgotten_mixing_is_refused() -> None:
    model = chain()
    graph = traced(model)
    mixings = niwaki.compensate(niwaki.Cut(graph, plan()), "merge:threshold=-1").mixings
    assert (
        niwaki.check(
            niwaki.Cut(graph, plan(), mixings), niwaki.shrink(niwaki.Cut(graph, plan(), mixings))
        ).difference
        < 1e-12
    )
    with pytest.raises(SurgeryError, match="the first layer that differs is 3 "):
        niwaki.check(niwaki.Cut(graph, plan(), mixings), niwaki.shrink(niwaki.Cut(graph, plan())))


def test_a_network_of_another_shape_is_refused() -> None:
    graph = traced(chain())
    with pytest.raises(SurgeryError, match="differs from the masked original by inf"):
        niwaki.check(
            niwaki.Cut(graph, plan()), nn.Sequential(nn.Flatten(), nn.Linear(147, 3)).double()
        )
    with pytest.raises(SurgeryError, match="returns 2 tensors, the original 1"):
        niwaki.check(niwaki.Cut(graph, plan()), Twice(chain()))


class Twice(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), self.body(x)


def test_one_that_does_not_run_is_refused_by_the_layer_that_raised() -> None:
    graph = traced(chain())
    pruned: Any = niwaki.shrink(niwaki.Cut(graph, plan()))
    pruned[6] = nn.Linear(26, 4).double()
    with pytest.raises(SurgeryError, match="does not run: 6 raised") as caught:
        niwaki.check(niwaki.Cut(graph, plan()), pruned)
    assert caught.value.layer == "6"


class Mean(nn.Module):
    """A divisor that is read from the shape, and is no plain function of a count of channels: the
    pruned network divides by another.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.full((6,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        h = h - h.sum(1, keepdim=True) / (h.shape[1] + 3)
        out: Tensor = self.out(x + self.scale * self.b(h))
        return out


@pytest.mark.parametrize("scale", [1.0, 1e-7, 0.0])
def test_a_branch_that_starts_at_zero_hides_no_wrong_cut(scale: float) -> None:
    """LayerScale, and residual branches whose last scale is zero: the outputs alone would show
    nothing.
    """
    torch.manual_seed(0)
    with pytest.raises(SurgeryError, match="differs from the masked original"):
        niwaki.prune(Mean(scale), torch.randn(4, 6))


@pytest.mark.parametrize("example", [torch.zeros(2, 3, 7, 7), torch.ones(2, 3, 7, 7)])
def test_a_constant_example_hides_no_wrong_cut(example: Tensor) -> None:
    model = chain()
    graph = niwaki.trace(model, example.double())
    pruned: Any = niwaki.shrink(niwaki.Cut(graph, plan()))
    with torch.no_grad():
        pruned[0].weight[0].mul_(1.1)
    with pytest.raises(SurgeryError, match="layer that differs is 0 "):
        niwaki.check(niwaki.Cut(graph, plan()), pruned)


def test_a_model_without_values_cannot_be_checked() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).to("meta")
    x = torch.randn(2, 3, device="meta")
    graph = niwaki.trace(model, x)
    cut = niwaki.Plan({"0": niwaki.core.plan.Kept(8, (0, 1))})
    pruned: Any = niwaki.shrink(niwaki.Cut(graph, cut))
    assert pruned[0].weight.shape == (2, 3)
    with pytest.raises(SurgeryError, match="meta device"):
        niwaki.check(niwaki.Cut(graph, cut), pruned)


@pytest.mark.parametrize("name", ["LayerNormMlp", "GroupNormConv"])
def test_statistics_over_kept_units_are_those_of_the_smaller_norm(name: str) -> None:
    """Where a norm takes statistics over pruned channels, the reference takes them over those that
    are left: by hand.
    """
    model = zoo.build(name, torch.float64)
    x = zoo.inputs(model, 1)
    graph = niwaki.trace(model, x)
    scores = niwaki.score(graph, "l1")
    plan = niwaki.select(niwaki.Scores(graph, scores), 0.5, niwaki.Selection(only=("body.0",))).plan
    if "body.0#2" in graph.crossing["body.0"]:  # norm groups and channels in a group: cut both here
        plan = niwaki.Plan(
            {
                **plan,
                **niwaki.select(
                    niwaki.Scores(graph, scores),
                    0.5,
                    niwaki.Selection(only=("body.0#2",)),
                ).plan,
            }
        )
    first = within.layer(model, "body.0")
    scale, shift = within.tensor(model, "body.1.weight"), within.tensor(model, "body.1.bias")
    if name == "LayerNormMlp":
        kept = list(plan["body.0"].units)
        wanted = nn.functional.layer_norm(
            first(x)[..., kept], (len(kept),), scale[kept], shift[kept]
        )
        found: Any = niwaki.shrink(niwaki.Cut(graph, plan))
    else:
        groups, channels = (list(plan[group].units) for group in ("body.0", "body.0#2"))
        kept = [4 * g + c for g in groups for c in channels]
        wanted = nn.functional.group_norm(first(x)[:, kept], len(groups), scale[kept], shift[kept])
        found = niwaki.shrink(niwaki.Cut(graph, plan))
    torch.testing.assert_close(found.body[1](found.body[0](x)), wanted)
    assert niwaki.check(niwaki.Cut(graph, plan), found).difference < 1e-12


class Boxes(nn.Module):
    """Hands on as many rows as score above zero: with units masked, other ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.score, self.box = (
            nn.Linear(6, 12),
            nn.Linear(12, 10),
            nn.Linear(10, 1),
            nn.Linear(10, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        keep = self.score(x).squeeze(1) > 0
        out: Tensor = self.box(x[keep])
        return out


def boxes(passing: float) -> tuple[Boxes, Tensor]:
    torch.manual_seed(1)
    model, x = Boxes().double().eval(), torch.randn(40, 6, dtype=torch.float64)
    with torch.no_grad():
        inner = torch.relu(model.b(torch.relu(model.a(x))))
        model.score.bias.sub_(model.score(inner).quantile(1 - passing) + 1e-6)
    return model, x


def test_nothing_is_proved_by_an_empty_output() -> None:
    model, x = boxes(0.8)
    with torch.no_grad():
        model.score.bias.sub_(100)
    with pytest.raises(SurgeryError, match="puts out nothing"):
        niwaki.prune(model, x, budget=0.5, compensation="none")


@pytest.mark.parametrize("compensation", ["none", "merge"])
@pytest.mark.usefixtures("quick_latency")
def test_a_model_that_hands_on_another_number_of_rows_once_masked_is_proved_by_its_weights(
    compensation: str,
) -> None:
    model, x = boxes(0.8)
    graph = niwaki.trace(model, x)
    assert graph.inference.tape.by_value
    result = niwaki.prune(model, x, budget=0.5, compensation=compensation)
    assert len(result.model(x)) not in (0, len(model(x)))
    mixings = niwaki.compensate(niwaki.Cut(graph, result.plan), compensation).mixings
    masked = oracle.masked(graph, result.plan, mixings)
    torch.testing.assert_close(result.model(x), masked(x))
    with torch.no_grad():
        result.model.get_parameter("box.weight")[0] += 1
    with pytest.raises(SurgeryError, match="differs from the masked original"):
        niwaki.check(niwaki.Cut(graph, result.plan, mixings), result.model)


class Winding(nn.Module):
    """The sine of large numbers, for long inputs only: what rounding does to them is all it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 700), nn.Linear(700, 3)

    def forward(self, x: Tensor) -> Tensor:
        turns = 1e4 if x.shape[1] > 4 else 1.0
        return torch.sin(self.last(torch.relu(self.first(x))) * turns)


def test_a_difference_on_a_probe_that_rounding_explains_is_said_and_no_refusal() -> None:
    torch.manual_seed(0)
    result = niwaki.prune(Winding().eval(), torch.randn(2, 4, 5), 0.5, compensation="none")
    said = [words for words in result.proof.covers if "rounding alone moves it" in words]
    assert [words.partition(" ")[0] for words in said] == ["5", "8"]
