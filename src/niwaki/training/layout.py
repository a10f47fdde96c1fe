"""Where the channels of images and kernels lie in memory during training."""

from __future__ import annotations

import torch
from torch import nn


def wants_channels_last(model: nn.Module, asked: bool | None, device: torch.device) -> bool:
    """Whether a model is to be trained channels-last: as asked, else where that is quicker.

    On a processor, torch's float32 convolutions read and write channels-last, and turn everything
    else around first: 1.17 times as many images a second for a ResNet-20
    (benchmarks/training_options.py).
    """
    if asked is not None:
        return asked
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return device.type == "cpu" and any(
        convolution.weight.dtype == torch.float32 for convolution in convolutions
    )


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Move a model's kernels into a layout, in place; values and names stay."""
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch lacks it
