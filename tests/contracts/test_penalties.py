"""What every penalty owes, on every network: a finite scalar that its gradient lowers, or a
sentence with the way out.
"""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from torch import nn

import niwaki
from niwaki.core.errors import SettingError
from niwaki.methods.base.penalty import PENALTIES, Penalty
from niwaki.methods.rni.convert import with_sigmoid_batchnorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@pytest.mark.parametrize("name", list(PENALTIES))
@pytest.mark.parametrize("model", zoo.MODELS)
def test_a_penalty_works_or_says_what_would(model: str, name: str) -> None:
    trap = zoo.build(model)
    network: nn.Module = trap
    inputs = zoo.inputs(trap, 1)
    if name == "rni":
        if not any(isinstance(module, BATCH_NORMS) for module in network.modules()):
            with pytest.raises(SettingError, match="'group-lasso'"):
                with_sigmoid_batchnorm(network)
            return
        network = with_sigmoid_batchnorm(network)
    graph = niwaki.trace(network, inputs)
    bounded = {scale.bounded for group in graph.groups for scale in group.scales}
    served = {"rni": True in bounded, "l1": bool(bounded), "group-lasso": bool(graph.groups)}
    served |= {"ssl": bool(graph.groups), "greg": bool(graph.groups)}
    if not served[name]:
        with pytest.raises(SettingError, match="group"):
            PENALTIES.build(name).over(graph)
        return
    penalty = PENALTIES.build(f"{name}:reg=0.5").over(graph)
    value = penalty(network)
    assert value.shape == ()
    assert value.isfinite()
    torch.testing.assert_close(penalty(copy.deepcopy(network)), value)  # it holds no model
    double = PENALTIES.build(f"{name}:reg=1").over(graph)(network)
    torch.testing.assert_close(double, 2 * value)
    if value.requires_grad:
        value.backward()
        moved = [
            parameter
            for parameter in network.parameters()
            if parameter.grad is not None and parameter.grad.any()
        ]
        assert moved
        with torch.no_grad():
            for parameter in moved:
                assert parameter.grad is not None
                step = 1e-3 * parameter.abs().max() / parameter.grad.norm()
                parameter.sub_(step * parameter.grad)
        assert penalty(network) <= value


def test_a_penalty_is_listed_with_its_settings() -> None:
    assert set(PENALTIES) == {"rni", "l1", "group-lasso", "ssl", "greg"}
    for name in PENALTIES:
        built = PENALTIES.build(f"{name}:reg=0.25")
        assert isinstance(built, Penalty)
        assert built.reg == 0.25
