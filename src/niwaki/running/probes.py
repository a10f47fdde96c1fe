"""Made-up weights and inputs: values that hide nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from niwaki.running.inputs import Inputs


def with_telling_weights(model: nn.Module) -> nn.Module:
    """A copy with made-up weights of a usual size: branches that start at zero would hide a wrong
    cut behind them.
    """
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            if parameter.ndim > 1:
                fan_in = max(1, parameter[0].numel())
                values = (
                    torch.randn(parameter.shape, generator=generator, device="cpu") / fan_in**0.5
                )
            else:
                values = torch.rand(parameter.shape, generator=generator, device="cpu") + 0.5
            parameter.data = values.to(parameter.device, parameter.dtype)
    return model


def telling_inputs(inputs: Inputs) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def spread(leaf: Any) -> Any:
        if (
            not isinstance(leaf, Tensor)
            or not leaf.is_floating_point()
            or leaf.layout != torch.strided
            or leaf.numel() < 2
            or bool((leaf != leaf.flatten()[0]).any())
        ):
            return leaf
        return torch.randn(leaf.shape, generator=generator, device="cpu").to(
            leaf.device, leaf.dtype
        )

    return tree_map(spread, inputs)  # type: ignore[no-any-return]  # the tree keeps its form
