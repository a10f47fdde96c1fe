"""What torch's own layers keep about their sizes: integers that must follow when their tensors
shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn


def sizes(module: nn.Module, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The size attributes that a torch layer should have, given the tensors that it holds now.

    Args:
        numbers: sizes that no tensor shows, as they reached the operators: "groups", "num_groups",
            "num_channels"; "normalized_shape", what a layer took its statistics over; and
            "num_features", of an instance norm without tensors.

    Returns:
        attribute → value; empty for modules that are not torch's own layers.
    """
    for kind, rule in _RULES:
        if isinstance(module, kind):
            return rule(module, numbers)
    return {}


def knows_sizes(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers whose size attributes `sizes` states."""
    return any(isinstance(module, kind) for kind, _ in _RULES)


def can_take_bias(module: nn.Module) -> bool:
    """Whether a layer without a bias adds one as soon as it is given one."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return (
        isinstance(module, kinds)
        and type(module).__module__.startswith("torch.nn.")
        and module.bias is None
    )


def give_bias(module: nn.Module, values: Tensor) -> None:
    """A new bias for a layer that can take one, of its weight's dtype, device and requires_grad;
    (out,).
    """
    weight: Tensor = module.weight  # type: ignore[assignment]  # such a layer has one
    module.bias = nn.Parameter(
        values.to(weight.device, weight.dtype), requires_grad=weight.requires_grad
    )


def _linear(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    outputs, inputs = module.weight.shape
    return {"in_features": inputs, "out_features": outputs}


def _convolution(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    groups = numbers.get("groups", module.groups)
    first, second = module.weight.shape[:2]
    inputs, outputs = (first, second * groups) if module.transposed else (second * groups, first)
    return {"in_channels": inputs, "out_channels": outputs, "groups": groups}


def _batch_norm(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    tensor: Tensor | None = module.running_mean if module.weight is None else module.weight
    if tensor is None:  # nothing of it but its input shows how many there are
        return {"num_features": numbers.get("num_features", module.num_features)}
    return {"num_features": tensor.shape[0]}


def _layer_norm(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    if module.weight is None:
        return {"normalized_shape": numbers.get("normalized_shape", module.normalized_shape)}
    return {"normalized_shape": tuple(module.weight.shape)}


def _group_norm(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    channels = (
        numbers.get("num_channels", module.num_channels)
        if module.weight is None
        else module.weight.shape[0]
    )
    return {"num_channels": channels, "num_groups": numbers.get("num_groups", module.num_groups)}


def _embedding(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_embeddings": module.weight.shape[0], "embedding_dim": module.weight.shape[1]}


def _recurrent(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {
        "input_size": module.weight_ih_l0.shape[1],
        "hidden_size": module.weight_hh_l0.shape[0] // _gates(module),
    }
    return {**sizes, "proj_size": module.weight_hr_l0.shape[0]} if module.proj_size else sizes


def _gates(module: Any) -> int:
    return {"LSTM": 4, "GRU": 3}.get(module.mode, 1)


def _cell(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}


def _prelu(module: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_parameters": module.weight.shape[0]}


_RULES: tuple[tuple[type[nn.Module], Callable[[Any, Mapping[str, Any]], dict[str, Any]]], ...] = (
    (nn.Linear, _linear),
    (nn.modules.conv._ConvNd, _convolution),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.Embedding, _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
)
