"""Criteria that need gradients, against a plain reading of their formulas; the model stays as it
is.
"""

from __future__ import annotations

import copy

import pytest
import torch
import within
import zoo
from torch import Tensor, nn
from torch.nn import functional as F

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods import optimal_brain_damage
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.optimal_brain_damage import Fisher, Hessian
from niwaki.methods.taylor import Taylor, TaylorActivation

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDING = ("taylor", "taylor-activation", "fisher", "hessian")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(3, 3)).double()


def labelled(shape: tuple[int, ...], size: int, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(size, *shape, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def raw(
    criterion: niwaki.Criterion,
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    seed: int = 0,
) -> dict[str, Tensor]:
    graph = niwaki.trace(model, batches[0][0])
    seen = niwaki.Calibration.labelled(batches)
    return criterion.scores(niwaki.Evidence(graph, seen, torch.Generator().manual_seed(seed)))


def gradient_times_value(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The products of the layer's weight and of its bias with their gradients."""
    weight, bias = within.tensor(layer, "weight"), within.tensor(layer, "bias")
    assert weight.grad is not None
    assert bias.grad is not None
    return (weight * weight.grad).detach(), (bias * bias.grad).detach()


def test_taylor_is_the_squared_sum_of_gradient_times_weight() -> None:
    model, batches = cnn(), labelled((2, 6, 6), 4)
    expected = torch.zeros(4, dtype=torch.float64)
    for inputs, labels in batches:
        model.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        weight, bias = gradient_times_value(model[0])
        expected += (weight.flatten(1).sum(1) + bias).square() / 3
    torch.testing.assert_close(raw(Taylor(), model, batches)["0"], expected, rtol=1e-10, atol=0)


def test_taylor_activation_is_the_mean_of_gradient_times_activation() -> None:
    model, batches = cnn(), labelled((2, 6, 6), 4)
    expected = torch.zeros(4, dtype=torch.float64)
    for inputs, labels in batches:
        maps = model[:3](inputs).detach().requires_grad_()
        F.cross_entropy(model[3:](maps), labels, reduction="sum").backward()
        # one mean over the places of a map for every sample, then its absolute value
        expected += (maps * maps.grad).detach().flatten(2).mean(2).abs().sum(0)
    expected = expected / expected.norm()
    found = raw(TaylorActivation(), model, batches)["0"]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_fisher_of_single_samples_is_the_sum_of_squared_gradients() -> None:
    model, batches = mlp(), labelled((4,), 1, 7)
    expected = torch.zeros(6, dtype=torch.float64)
    for inputs, labels in batches:
        model.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        weight, bias = gradient_times_value(model[2])
        expected += (weight.square().sum(1) + bias.square()) / 14
    torch.testing.assert_close(raw(Fisher(), model, batches)["2"], expected, rtol=1e-10, atol=0)


def test_fisher_of_a_batch_is_right_on_average_over_signs() -> None:
    model, ((inputs, labels),) = mlp(), labelled((4,), 6, 1)
    alone = [(inputs[i : i + 1], labels[i : i + 1]) for i in range(6)]
    exact = raw(Fisher(), model, alone)["2"]
    found = raw(Fisher(draws=600), model, [(inputs, labels)])["2"]
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0)


def test_hessian_is_half_of_signs_times_hessian_times_signs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ((inputs, labels),) = mlp(), labelled((4,), 6, 1)
    drawn: list[Tensor] = []

    def noted(like: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append((2 * torch.randint(0, 2, like.shape, generator=generator) - 1).to(like))
        return drawn[-1]

    monkeypatch.setattr(optimal_brain_damage, "_signs", noted)
    found = raw(Hessian(draws=1), model, [(inputs, labels)])["2"]
    names = [name for name, _ in model.named_parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def loss(values: Tensor) -> Tensor:
        parts = dict(zip(names, values.split(sizes), strict=True))
        state = {name: parts[name].view_as(p) for name, p in model.named_parameters()}
        return F.cross_entropy(torch.func.functional_call(model, state, (inputs,)), labels)

    matrix = torch.autograd.functional.hessian(loss, flat)
    way = flat * torch.cat([signs.flatten() for signs in drawn])
    parts = dict(zip(names, (way * (matrix @ way) / 2).split(sizes), strict=True))
    expected = parts["2.weight"].view(6, 5).sum(1) + parts["2.bias"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_hutchinson_on_a_quadratic_is_the_worked_example() -> None:
    w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    loss = w[0] ** 2 + 3 * w[0] * w[1] + 5 * w[1] ** 2
    slope = torch.autograd.grad(loss, w, create_graph=True)[0]
    signs = [torch.tensor(pair, dtype=torch.float64) for pair in ((1, -1), (1, 1))]
    parts = [
        optimal_brain_damage._curvature_along({"w": slope}, {"w": sign * w.detach()}, {"w": w})["w"]
        for sign in signs
    ]
    assert (torch.stack(parts).sum(0) / 4).tolist() == [4, 5]


@pytest.mark.parametrize("name", NEEDING)
def test_a_unit_that_nothing_hears_scores_lowest_and_labels_are_not_needed(name: str) -> None:
    model = mlp()
    with torch.no_grad():
        within.tensor(model, "4.weight")[:, 2] = 0
        within.tensor(model, "2.bias").add_(5)  # so that no other unit is dead
    inputs = [torch.randn(8, 4, dtype=torch.float64) for _ in range(3)]
    scores = niwaki.score(
        niwaki.trace(model, inputs[0]), name, calibration=niwaki.Calibration.of(inputs)
    )
    assert float(scores["2"][2]) == 0
    assert int((scores["2"] == 0).sum()) == 1


@pytest.mark.parametrize("name", NEEDING)
@pytest.mark.parametrize(
    "trap", ["InPlaceOps", "FrozenParameters", "LstmInside", "WritesThroughAView"]
)
def test_the_model_is_left_exactly_as_it_was(name: str, trap: str) -> None:
    model = zoo.build(trap)
    graph, seen = niwaki.trace(model, zoo.inputs(model, 1)), zoo.calibration(model)
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state, chance = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    niwaki.score(graph, name, calibration=seen)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and bool((grad == 1).all()) for grad in gradients)
    assert trainable == [parameter.requires_grad for parameter in model.parameters()]
    assert all(module.training for module in model.modules())
    assert torch.equal(chance, torch.get_rng_state())


def test_attention_has_no_second_derivative_and_fisher_stands_in() -> None:
    model = zoo.build("EncoderLayer")
    graph, seen = niwaki.trace(model, zoo.inputs(model, 1)), zoo.calibration(model)
    remarks: list[str] = []
    scores = niwaki.score(graph, "hessian", calibration=seen, say=remarks.append)
    assert "fisher" in remarks[0]
    assert all(bool((values >= 0).all()) for values in scores.values())


class Hard(nn.Module):
    """Its answer has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x).relu()).argmax(1)
        return out


@pytest.mark.parametrize("name", NEEDING)
def test_without_gradients_all_units_count_alike_and_it_is_said(name: str) -> None:
    graph = niwaki.trace(Hard(), torch.randn(2, 4))
    seen, remarks = niwaki.Calibration.of([torch.randn(5, 4)]), list[str]()
    scores = niwaki.score(graph, name, calibration=seen, say=remarks.append)
    assert all(bool((values == 0).all()) for values in scores.values())
    assert "derivative" in remarks[-1]


@pytest.mark.parametrize("name", NEEDING)
def test_they_ask_for_inputs_and_refuse_nonsense(name: str) -> None:
    graph = niwaki.trace(mlp(), torch.randn(2, 4, dtype=torch.float64))
    with pytest.raises(SettingError, match="calibration="):
        niwaki.score(graph, name)
    with pytest.raises(SettingError, match="at least 1"):
        CRITERIA.build(f"{name}:batches=0")


def test_sequences_and_maps_may_have_a_class_number_at_every_place() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)).double()
    inputs, labels = torch.randn(2, 3, 4).double(), torch.randint(0, 5, (2, 3))
    found = raw(Taylor(), model, [(inputs, labels)])["0"]
    F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten()).backward()
    weight, bias = gradient_times_value(model[0])
    torch.testing.assert_close(found, (weight.sum(1) + bias).square(), rtol=1e-10, atol=0)
