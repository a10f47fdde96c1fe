"""Learned sparsity: bounded scales that fold back exactly, penalties that are their formulas, and
the scale criterion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import within
import zoo
from torch import Tensor, nn

import niwaki
from niwaki import models
from niwaki.core.errors import SettingError
from niwaki.methods.base.penalty import PENALTIES
from niwaki.methods.group_lasso import GroupLasso
from niwaki.methods.rni.batch_norm import SigmoidBatchNorm1d, SigmoidBatchNorm2d, SigmoidBatchNorm3d
from niwaki.methods.rni.convert import fold_sigmoid_batchnorm, with_sigmoid_batchnorm
from niwaki.methods.rni.parameters import parameter_groups
from niwaki.methods.rni.penalty import RNI
from niwaki.methods.slimming import Slimming

pytestmark = pytest.mark.usefixtures("one_thread")


class Llamaish(nn.Module):
    """A stream with LayerNorm and RMSNorm, read by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.rms = nn.Linear(4, 6), nn.LayerNorm(6), nn.RMSNorm(6)
        self.scale = nn.Parameter(torch.full((6,), 0.1))
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        out: Tensor = self.out(self.rms(x + self.scale * self.norm(x)))
        return out


def vgg_like(sigmoid: bool = True) -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    model = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    return with_sigmoid_batchnorm(model) if sigmoid else model


INPUTS = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))


SHAPES = (
    (SigmoidBatchNorm1d, (6, 5)),
    (SigmoidBatchNorm1d, (6, 5, 4)),
    (SigmoidBatchNorm2d, (6, 5, 4, 3)),
    (SigmoidBatchNorm3d, (6, 5, 2, 3, 2)),
)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_sigmoid_batchnorm_is_its_formula(
    kind: Any, shape: tuple[int, ...], momentum: float | None
) -> None:
    torch.manual_seed(2)
    layer = kind(5, momentum=momentum)
    assert layer.weight.std() > 0.1  # N(0, 1)
    assert not layer.bias.any()
    assert "bias" not in {*layer.state_dict(), *dict(layer.named_parameters())}
    x = torch.randn(shape) * 3 + 1
    axes = [axis for axis in range(len(shape)) if axis != 1]
    view = [1, 5, *[1] * (len(shape) - 2)]
    mean, var = x.mean(axes), x.var(axes, unbiased=False)
    wanted = (
        torch.sigmoid(layer.weight).view(view)
        * (x - mean.view(view))
        / (var.view(view) + layer.eps).sqrt()
    )
    torch.testing.assert_close(layer(x), wanted)
    reference = type(layer).__mro__[2](5, momentum=momentum)
    reference(x)
    assert torch.equal(layer.running_mean, reference.running_mean)
    assert torch.equal(layer.running_var, reference.running_var)
    assert layer.num_batches_tracked == reference.num_batches_tracked == 1


@pytest.mark.parametrize("name", ["vgg16", "resnet20"])
def test_folded_back_it_computes_the_same(name: str) -> None:
    torch.manual_seed(3)
    plain = models.build(name)
    model = with_sigmoid_batchnorm(plain)
    assert any(isinstance(module, SigmoidBatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, SigmoidBatchNorm2d) for module in plain.modules())
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        model(x)  # statistics of its own
    folded = fold_sigmoid_batchnorm(model)
    assert not any(isinstance(module, SigmoidBatchNorm2d) for module in folded.modules())
    assert list(dict(folded.named_modules())) == list(dict(plain.named_modules()))
    for network in (model, folded):
        network.eval()
    with torch.no_grad():
        assert (model(x) - folded(x)).abs().max() <= 1e-6
        assert (model.train()(x) - folded.train()(x)).abs().max() <= 1e-6


def test_shared_frozen_and_scaleless_layers_are_converted_as_they_were() -> None:
    shared = nn.BatchNorm1d(4).double().eval()
    shared.weight.requires_grad_(False)
    model = nn.Sequential(
        nn.Linear(4, 4), shared, nn.Linear(4, 4), shared, nn.BatchNorm1d(4, affine=False)
    ).double()
    model.train()
    shared.eval()
    made = with_sigmoid_batchnorm(model)
    assert within.layer(made, "1") is within.layer(made, "3")
    assert (
        within.tensor(made, "1.weight").dtype,
        within.tensor(made, "1.weight").requires_grad,
        within.layer(made, "1").training,
    ) == (
        torch.float64,
        False,
        False,
    )
    assert type(within.layer(made, "4")) is nn.BatchNorm1d
    assert isinstance(with_sigmoid_batchnorm(nn.BatchNorm1d(3)), SigmoidBatchNorm1d)


def test_a_model_without_batchnorm_is_refused_with_what_would_serve() -> None:
    with pytest.raises(
        SettingError, match=r"Llamaish has no BatchNorm .* use the penalty 'l1'.*'group-lasso'"
    ):
        with_sigmoid_batchnorm(Llamaish())


def gammas(model: nn.Module) -> list[Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, (nn.BatchNorm2d,))]


def total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum()


def by_formula(name: str, model: nn.Module) -> Tensor:
    if name == "rni":
        ps = [torch.sigmoid(gamma + 3) for gamma in gammas(model)]
        return 0.01 * total((p * (1 - p.log())).sum() for p in ps)
    if name == "l1":
        return 0.01 * total(gamma.abs().sum() for gamma in gammas(model))
    convs = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    return 0.01 * total(weight.pow(2).sum((1, 2, 3)).sqrt().sum() for weight in convs)


@pytest.mark.parametrize("spec", ["rni:reg=0.01,b=3", "l1:reg=0.01", "group-lasso:reg=0.01"])
def test_a_penalty_and_its_gradient_are_those_of_the_formula(spec: str) -> None:
    model = vgg_like(sigmoid=spec.startswith("rni"))
    with torch.no_grad():
        for gamma in gammas(model):
            gamma.copy_(torch.randn_like(gamma))
    penalty = PENALTIES.build(spec).over(niwaki.trace(model, INPUTS))
    found, wanted = penalty(model), by_formula(spec.split(":")[0], model)
    torch.testing.assert_close(found, wanted)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(found, parameters, allow_unused=True)
    theirs = torch.autograd.grad(wanted, parameters, allow_unused=True)
    assert sum(gradient is not None for gradient in ours) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            torch.testing.assert_close(mine, other)


def test_needed_units_are_left_alone_by_rni_and_pushed_by_l1() -> None:
    model = vgg_like()
    graph = niwaki.trace(model, INPUTS)
    rni = RNI(reg=1.0, b=3.0).over(graph, only="0")
    gamma = within.tensor(model, "1.weight")
    pushes = {}
    for value in (-6.0, -3.0, 0.0, 3.0, 6.0):
        with torch.no_grad():
            gamma.fill_(value)
        (gradient,) = torch.autograd.grad(rni(model), [gamma])
        p = 1 / (1 + math.exp(-(value + 3)))
        assert gradient[0].item() == pytest.approx(-math.log(p) * p * (1 - p), rel=1e-4)
        pushes[value] = gradient[0].item()
    assert pushes[-3.0] == pytest.approx(0.1733, abs=1e-4)  # at its strongest near p = 0.3
    assert pushes[3.0] < 1e-4 * pushes[-3.0]
    assert pushes[6.0] < 1e-6 * pushes[-3.0]
    plain = vgg_like(sigmoid=False)
    l1 = Slimming(reg=1.0).over(niwaki.trace(plain, INPUTS), only="0")
    for value in (0.1, 3.0, 6.0):
        with torch.no_grad():
            within.tensor(plain, "1.weight").fill_(value)
        (gradient,) = torch.autograd.grad(l1(plain), [within.tensor(plain, "1.weight")])
        assert gradient.tolist() == [1.0] * 8


def test_scales_of_layernorm_rmsnorm_and_layer_scales_are_seen() -> None:
    model = Llamaish()
    graph = niwaki.trace(model, torch.randn(2, 4))
    with torch.no_grad():
        for parameter in (model.norm.weight, model.rms.weight, model.scale):
            parameter.copy_(torch.randn(6))
    assert {scale.piece.tensor for scale in graph["inner"].scales} == {
        "norm.weight",
        "rms.weight",
        "scale",
    }
    found = Slimming(reg=2.0).over(graph)(model)
    scales = [model.norm.weight, model.rms.weight, model.scale]
    torch.testing.assert_close(found, 2 * sum(scale.abs().sum() for scale in scales))
    mean = torch.stack([scale.abs() for scale in scales]).mean(0)
    torch.testing.assert_close(niwaki.score(graph, "bn-scale")["inner"].float(), mean)
    with pytest.raises(SettingError, match="not bounded, and RNI needs"):
        RNI().over(graph)


def test_the_scale_criterion_reads_bounded_and_plain_scales() -> None:
    bounded, plain = vgg_like(), vgg_like(sigmoid=False)
    with torch.no_grad():
        within.tensor(plain, "1.weight").copy_(torch.randn(8))
    found = niwaki.score(niwaki.trace(bounded, INPUTS), "bn-scale")
    torch.testing.assert_close(
        found["0"].float(), torch.sigmoid(within.tensor(bounded, "1.weight"))
    )
    torch.testing.assert_close(
        found["3"].float(), torch.sigmoid(within.tensor(bounded, "4.weight"))
    )
    found = niwaki.score(niwaki.trace(plain, INPUTS), "bn-scale")
    torch.testing.assert_close(
        found["0"].float(), within.tensor(plain, "1.weight").abs()
    )  # not divided by anything


def test_a_network_with_sigmoid_batchnorm_is_pruned_by_one_threshold_and_proved() -> None:
    model = vgg_like()
    result = niwaki.prune(
        model,
        INPUTS,
        criterion="bn-scale",
        budget=0.7,
        compensation="none",
        scope="global",
        min_units=3,
    )
    assert result.record.notes[0].startswith("proved")
    kept = {name: len(entry.units) for name, entry in result.plan.items()}
    assert sum(kept.values()) == 6
    assert all(count >= 3 for count in kept.values())
    importances = torch.sigmoid(within.tensor(model, "1.weight"))
    assert set(result.plan["0"].units) == set(importances.topk(kept["0"]).indices.tolist())
    assert isinstance(within.layer(result.model, "1"), SigmoidBatchNorm2d)
    assert within.size(result.model, "1.num_features") == kept["0"]
    x = torch.randn(3, 3, 10, 10)
    torch.testing.assert_close(
        fold_sigmoid_batchnorm(result.model).eval()(x), result.model.eval()(x)
    )


@pytest.mark.parametrize("criterion", ["bn-scale"])
def test_models_without_a_scale_are_told_which_criterion_serves(criterion: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(
        SettingError,
        match="bn-scale reads normalisation scales, and 0 has none; the criteria l1 and l2",
    ):
        niwaki.prune(model, torch.randn(2, 4), criterion=criterion)
    for penalty in (RNI(), Slimming()):
        with pytest.raises(
            SettingError, match="'group-lasso' works on weights, and the criteria 'l1' and 'l2'"
        ):
            penalty.over(niwaki.trace(model, torch.randn(2, 4)))
    assert GroupLasso(0.5).over(niwaki.trace(model, torch.randn(2, 4)))(model) > 0
    mixed = nn.Sequential(
        *list(vgg_like().children())[:8], nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 2)
    )
    with pytest.raises(SettingError, match=r"no scores for group '8'; leave it out with skip='8'"):
        niwaki.prune(mixed, INPUTS, criterion="bn-scale")
    assert (
        len(niwaki.prune(mixed, INPUTS, criterion="bn-scale", skip="8", compensation="none").plan)
        == 2
    )


@pytest.mark.parametrize(
    "spec", ["rni:reg=-1", "l1:reg=nan", "group-lasso:reg=inf", "l1:reg=-0.001", "rni:b=nan"]
)
def test_bad_weights_are_refused(spec: str) -> None:
    with pytest.raises(SettingError, match="must be a"):
        PENALTIES.build(spec)


def test_patterns_choose_groups() -> None:
    model = vgg_like()
    graph = niwaki.trace(model, INPUTS)
    first, second = RNI().over(graph, only="0")(model), RNI().over(graph, skip="0")(model)
    torch.testing.assert_close(first + second, RNI().over(graph)(model))
    with pytest.raises(SettingError, match="no group has a layer named like 'conv9'"):
        RNI().over(graph, only="conv9")


def test_parameter_groups_hold_every_parameter_once() -> None:
    model = vgg_like()
    within.tensor(model, "0.weight").requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.3)
    assert [(group["weight_decay"], group["lr_scale"]) for group in groups] == [
        (0.3, 1.0),
        (0.0, 1.0),
        (0.0, 10.0),
    ]
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [
        [(12, 8, 3, 3), (5, 12)],
        [(5,)],
        [(8,), (12,)],
    ]
    with pytest.raises(SettingError, match="weight_decay must be 0 or more"):
        parameter_groups(model, weight_decay=-1)


@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_group_lasso_works_on_every_network(name: str) -> None:
    model = zoo.build(name)
    graph = niwaki.trace(model, zoo.inputs(model, 1))
    if not graph.groups:
        pytest.skip("no groups")
    penalty = GroupLasso(1.0).over(graph)
    value = penalty(model)
    assert value.isfinite()
    assert value > 0
    if not value.requires_grad:
        pytest.skip("all frozen")
    value.backward()
    touched = {term.piece.tensor for term in penalty.terms}
    parameters = dict(model.named_parameters())
    touched |= {  # a weight under weight_norm is computed from these
        name
        for tensor in touched - parameters.keys()
        for name in parameters
        if name.startswith(f"{tensor.rpartition('.')[0]}.parametrizations.")
    }
    read = [parameters[tensor] for tensor in touched & parameters.keys()]
    gradients = [parameter.grad for parameter in read if parameter.requires_grad]
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_network_folded_after_its_pruning_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bounded = with_sigmoid_batchnorm(models.build("digits-cnn")).eval()
    x = torch.randn(2, 1, 8, 8)
    result = niwaki.prune(bounded, x, budget=0.5, compensation="none")
    folded = fold_sigmoid_batchnorm(result.model)
    niwaki.save(dataclasses.replace(result, model=folded), tmp_path / "folded")
    loaded = niwaki.load(tmp_path / "folded")
    assert torch.equal(loaded(x), folded(x))
    torch.testing.assert_close(loaded(x), result.model(x))
