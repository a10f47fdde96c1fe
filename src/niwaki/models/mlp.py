"""Fully connected networks for grey images; they flatten the image themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.models.architecture import Architecture, Shape, architectures

Norm = Literal["none", "batch"]


class Lenet300100(nn.Module):
    """pixels-300-100-classes with ReLU (LeCun et al. 1998; layer names of the Neuron Merging
    checkpoint).
    """

    def __init__(self, input_shape: Shape, classes: int) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.ip1 = nn.Linear(math.prod(input_shape), 300)
        self.ip2 = nn.Linear(300, 100)
        self.ip3 = nn.Linear(100, classes)

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        hidden = F.relu(self.ip1(images.flatten(1)))
        hidden = F.relu(self.ip2(hidden))
        return self.ip3(hidden)  # type: ignore[no-any-return]  # a Linear returns a Tensor; torch types it Any


class MnistMlp(nn.Module):
    """pixels-500-300-classes with ReLU, dropout after each hidden layer (MINT, arXiv
    2003.08472); with BatchNorm before each ReLU it is Network Slimming's (arXiv 1708.06519).
    """

    def __init__(
        self, input_shape: Shape, classes: int, dropout: float, norm: Norm = "none"
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.fc1 = nn.Linear(math.prod(input_shape), 500)
        self.fc2 = nn.Linear(500, 300)
        self.fc3 = nn.Linear(300, classes)
        self.dropout = nn.Dropout(dropout)
        self.bn1 = nn.BatchNorm1d(500) if norm == "batch" else nn.Identity()
        self.bn2 = nn.BatchNorm1d(300) if norm == "batch" else nn.Identity()

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        hidden = self.dropout(F.relu(self.bn1(self.fc1(images.flatten(1)))))
        hidden = self.dropout(F.relu(self.bn2(self.fc2(hidden))))
        return self.fc3(hidden)  # type: ignore[no-any-return]  # as above


@architectures.register("lenet-300-100")
@dataclasses.dataclass(frozen=True)
class Lenet300100Settings(Architecture):
    """LeNet-300-100 for 28 × 28 grey images."""

    in_channels: int = 1
    image_size: int = 28

    def build(self) -> nn.Module:
        """Weights as torch initialises a Linear."""
        return Lenet300100(self.input_shape, self.classes)


@architectures.register("mnist-mlp")
@dataclasses.dataclass(frozen=True)
class MnistMlpSettings(Architecture):
    """MINT's MNIST network for 28 × 28 grey images."""

    in_channels: int = 1
    image_size: int = 28
    dropout: float = 0.2
    norm: Norm = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be in [0, 1); got {self.dropout}")

    def build(self) -> nn.Module:
        """Weights as torch initialises a Linear."""
        return MnistMlp(self.input_shape, self.classes, self.dropout, self.norm)
