"""Sigmoid BatchNorm: y = sigmoid(γ)·x̂, no shift. Its factors lie in (0, 1), so that importances
can be compared.

Source: Suteu and Guo, Receding Neuron Importances for Structured Pruning, 2022, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _SigmoidBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's BatchNorm but for its affine map; `weight` (num_features,) is γ, drawn from N(0, 1).

    `bias` is a constant zero that is not saved: it is cut with the rest, so that a network that is
    folded after its pruning has all that a plain one would have.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, **options: Any
    ) -> None:
        super().__init__(num_features, eps, momentum, affine=True, **options)
        del self.bias
        self.register_buffer("bias", torch.zeros(num_features), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """γ ~ N(0, 1); running statistics as of nothing seen."""
        self.reset_running_stats()
        nn.init.normal_(self.weight)

    @property
    def importances(self) -> Tensor:
        """sigmoid(γ): (num_features,), in (0, 1)."""
        return torch.sigmoid(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """(batch, num_features, …), normalised and scaled; the same shape."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch has no types here
        momentum = self.momentum or 0.0
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a cumulative mean
                momentum = 1.0 / float(self.num_batches_tracked)
        kept = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if kept else None,
            self.running_var if kept else None,
            self.importances,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )


class SigmoidBatchNorm1d(_SigmoidBatchNorm, nn.BatchNorm1d):
    """For (batch, features) and (batch, features, length)."""


class SigmoidBatchNorm2d(_SigmoidBatchNorm, nn.BatchNorm2d):
    """For (batch, channels, height, width)."""


class SigmoidBatchNorm3d(_SigmoidBatchNorm, nn.BatchNorm3d):
    """For (batch, channels, depth, height, width)."""
