"""WideResNet-40-4 (Zagoruyko and Komodakis, arXiv 1605.07146): BatchNorm and ReLU come before each
convolution.
"""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.models.architecture import Architecture, Shape, architectures, initialise

STEM = 16  # channels after the first convolution, and the unit that the widening factor multiplies


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus the shortcut: a 1 × 1 convolution of the rectified x where the
    shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.downsample = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else None
        )

    def forward(
        self, x: Tensor
    ) -> Tensor:  # (batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)
        rectified = F.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(rectified)
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(rectified))))
        return inner + shortcut


class WideResNet(nn.Module):
    """A wide residual network of 6·n + 4 layers: `conv1`, `layer1` … `layer3` of n blocks, `bn`,
    `fc`.
    """

    def __init__(self, input_shape: Shape, classes: int, depth: int, widening: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise SettingError(
                f"a wide residual network has 6·n + 4 layers (10, 16, 22, …); got {depth}"
            )
        self.input_shape = input_shape
        blocks, widths = (depth - 4) // 6, [STEM * widening * factor for factor in (1, 2, 4)]
        self.conv1 = nn.Conv2d(input_shape[0], STEM, 3, padding=1, bias=False)
        self.layer1 = _stage(STEM, widths[0], 1, blocks)
        self.layer2 = _stage(widths[0], widths[1], 2, blocks)
        self.layer3 = _stage(widths[1], widths[2], 2, blocks)
        self.bn = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], classes)
        initialise(self)

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        x = F.adaptive_avg_pool2d(F.relu(self.bn(x)), 1)
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]  # torch types it Any


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (PreActivationBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(PreActivationBlock(inputs, outputs, stride), *rest)


@architectures.register("wide-resnet-40-4")
@dataclasses.dataclass(frozen=True)
class WideResNet404Settings(Architecture):
    """40 layers, four times as wide, no dropout."""

    def build(self) -> nn.Module:
        """Weights from He's initialisation."""
        return WideResNet(self.input_shape, self.classes, depth=40, widening=4)
