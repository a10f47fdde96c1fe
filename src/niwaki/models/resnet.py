"""The CIFAR residual networks (He et al., arXiv 1512.03385): three stages of two-convolution
blocks.

With `shortcut="projection"` this is also the function of Neuron Merging's ResNet-56 checkpoint,
name for name: its code applies the ReLU at the start of the next block instead of at the end of
this one, which is the same network. With `stem="linear"` it is RNI's: no ReLU stands after the
first convolution and its BatchNorm, so that the first block reads signed numbers.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.models.architecture import Architecture, Shape, architectures, initialise

Shortcut = Literal["padding", "projection"]
Stem = Literal["relu", "linear"]
WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: every stride-th pixel, zero channels before and after the
    input's.

    `padding` is (channels before, channels after): an attribute, because pruning the sum rewrites
    it.
    """

    def __init__(self, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding

    def forward(
        self, x: Tensor
    ) -> Tensor:  # (batch, c, h, w) -> (batch, before + c + after, ceil(h / s), ceil(w / s))
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"stride={self.stride}, padding={self.padding}"


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride, shortcut)

    def forward(
        self, x: Tensor
    ) -> Tensor:  # (batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.downsample(x))


def _downsample(inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if shortcut == "projection":
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    before = (outputs - inputs) // 2
    return PaddedShortcut(stride, (before, outputs - inputs - before))


class ResNet(nn.Module):
    """A CIFAR residual network of 6·n + 2 layers: `conv1`, `bn1`, `layer1` … `layer3` of n blocks,
    `fc`.
    """

    def __init__(
        self,
        input_shape: Shape,
        classes: int,
        depth: int,
        shortcut: Shortcut,
        stem: Stem = "relu",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise SettingError(
                f"a CIFAR residual network has 6·n + 2 layers (8, 14, 20, …); got {depth}"
            )
        self.input_shape = input_shape
        self.stem = stem
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(input_shape[0], WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], 1, blocks, shortcut)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], 2, blocks, shortcut)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], 2, blocks, shortcut)
        self.fc = nn.Linear(WIDTHS[2], classes)
        initialise(self)

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        x = self.bn1(self.conv1(images))
        x = x if self.stem == "linear" else F.relu(x)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]  # torch types it Any


def _stage(
    inputs: int, outputs: int, stride: int, blocks: int, shortcut: Shortcut
) -> nn.Sequential:
    rest = (ResidualBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, stride, shortcut), *rest)


@dataclasses.dataclass(frozen=True)
class ResNetSettings(Architecture):
    """`shortcut` where the shape changes: "padding" (RNI, arXiv 2204.06404, and MINT) or
    "projection" (Neuron Merging); `stem`: whether a ReLU follows the first convolution, "relu", or
    none does, "linear" (RNI).
    """

    depth: ClassVar[int]  # each listed network is one depth
    shortcut: Shortcut = "padding"
    stem: Stem = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortcut not in ("padding", "projection"):
            raise SettingError(f"shortcut is one of padding, projection; got {self.shortcut!r}")
        if self.stem not in ("relu", "linear"):
            raise SettingError(f"stem is one of relu, linear; got {self.stem!r}")

    def build(self) -> nn.Module:
        """Weights from He's initialisation."""
        return ResNet(self.input_shape, self.classes, self.depth, self.shortcut, self.stem)


@architectures.register("resnet20")
class ResNet20Settings(ResNetSettings):
    """20 layers, 3 blocks a stage."""

    depth = 20


@architectures.register("resnet32")
class ResNet32Settings(ResNetSettings):
    """32 layers, 5 blocks a stage."""

    depth = 32


@architectures.register("resnet44")
class ResNet44Settings(ResNetSettings):
    """44 layers, 7 blocks a stage."""

    depth = 44


@architectures.register("resnet56")
class ResNet56Settings(ResNetSettings):
    """56 layers, 9 blocks a stage."""

    depth = 56


@architectures.register("resnet110")
class ResNet110Settings(ResNetSettings):
    """110 layers, 18 blocks a stage."""

    depth = 110
