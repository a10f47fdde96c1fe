"""Optimiser parameter groups for learned sparsity: which parameters decay, and which move
faster.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from niwaki.core.errors import SettingError
from niwaki.methods.rni.batch_norm import _SigmoidBatchNorm


def parameter_groups(
    model: nn.Module, *, weight_decay: float = 1e-4, factor: float = 10.0
) -> list[dict[str, Any]]:
    """Parameter groups as `niwaki.training.fit` and torch's optimisers take them, of trainable
    parameters.

    Weights (of two axes and more) decay; biases and normalisation do not; the γ of Sigmoid
    BatchNorm neither, and their learning rate is `factor` times that of the others (`lr_scale`; a
    torch optimiser needs `lr` set from it).

    Raises:
        SettingError: a weight decay below 0, or a factor that is not above 0.
    """
    if not weight_decay >= 0 or not factor > 0:
        raise SettingError(
            f"weight_decay must be 0 or more and factor above 0; got {weight_decay} and {factor}"
        )
    bounded = {module.weight for module in model.modules() if isinstance(module, _SigmoidBatchNorm)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    others = [parameter for parameter in trainable if parameter not in bounded]
    groups = [
        {
            "params": [p for p in others if p.ndim >= 2],
            "weight_decay": weight_decay,
            "lr_scale": 1.0,
        },
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": [p for p in trainable if p in bounded], "weight_decay": 0.0, "lr_scale": factor},
    ]
    return [group for group in groups if group["params"]]
