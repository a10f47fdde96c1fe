"""Put Sigmoid BatchNorm into a model, and fold it back into plain BatchNorm, exactly, for
export.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from niwaki.core.errors import SettingError
from niwaki.methods.rni.batch_norm import (
    SigmoidBatchNorm1d,
    SigmoidBatchNorm2d,
    SigmoidBatchNorm3d,
    _SigmoidBatchNorm,
)

BOUNDED: dict[type[nn.Module], type[_SigmoidBatchNorm]] = {
    nn.BatchNorm1d: SigmoidBatchNorm1d,
    nn.BatchNorm2d: SigmoidBatchNorm2d,
    nn.BatchNorm3d: SigmoidBatchNorm3d,
}
PLAIN = {bounded: plain for plain, bounded in BOUNDED.items()}


def with_sigmoid_batchnorm(model: nn.Module) -> nn.Module:
    """A copy of the model whose BatchNorms with a scale are Sigmoid BatchNorms, with γ ~ N(0, 1)
    from torch's generator.

    Running statistics stay; scale and shift of the old layers are dropped, so this is for models
    that are to be trained. Layers of other classes (also subclasses of BatchNorm) stay as they are.

    Raises:
        SettingError: there is no BatchNorm with a scale.
    """
    copied, scaled_layers = _replaced(copy.deepcopy(model), _is_scaled, _bounded)
    if not scaled_layers:
        raise SettingError(
            f"{type(model).__name__} has no BatchNorm with a scale to bound; on LayerNorm or "
            "RMSNorm scales use the penalty 'l1', on networks without any use 'group-lasso', "
            "which works on the weights"
        )
    return copied


def fold_sigmoid_batchnorm(model: nn.Module) -> nn.Module:
    """A copy of the model with plain BatchNorms that compute the same: weight = sigmoid(γ), bias =
    0.
    """
    return _replaced(copy.deepcopy(model), lambda module: type(module) in PLAIN, _plain)[0]


def _is_scaled(module: nn.Module) -> bool:
    return type(module) in BOUNDED and isinstance(getattr(module, "weight", None), nn.Parameter)


def _replaced(
    model: nn.Module, wanted: Callable[[nn.Module], bool], replace: Callable[[nn.Module], nn.Module]
) -> tuple[nn.Module, int]:
    """The model with layers replaced, one that is used in several places by one, and how many there
    were.
    """
    new = {module: replace(module) for module in model.modules() if wanted(module)}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children() leaves out repeats
            if child in new:
                parent._modules[name] = new[child]
    return new.get(model, model), len(new)


def _bounded(module: nn.Module) -> nn.Module:
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    layer = BOUNDED[type(module)](
        module.num_features,
        module.eps,
        module.momentum,
        track_running_stats=module.track_running_stats,
    )
    return _like(layer, module)


def _plain(module: nn.Module) -> nn.Module:
    assert isinstance(module, _SigmoidBatchNorm)
    layer = PLAIN[type(module)](
        module.num_features,
        module.eps,
        module.momentum,
        track_running_stats=module.track_running_stats,
    )
    layer = _like(layer, module)
    with torch.no_grad():
        layer.weight.copy_(module.importances)  # type: ignore[operator]  # it is a BatchNorm
    return layer


def _like(layer: nn.Module, module: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    """With the old layer's statistics, mode, device and dtype."""
    layer.to(module.weight.device, module.weight.dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if name != "bias":
            layer.register_buffer(name, buffer)
    for parameter in layer.parameters():
        parameter.requires_grad_(module.weight.requires_grad)
    return layer.train(module.training)
