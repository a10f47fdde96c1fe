"""A small convolutional network for the 8 × 8 digits: what the demo trains in seconds."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from niwaki.models.architecture import Architecture, Shape, architectures, initialise

WIDTHS = (32, 64, 64)


class DigitsCnn(nn.Module):
    """Three convolutions with BatchNorm and ReLU, a pooling behind the second, and two Linear
    layers.
    """

    def __init__(self, input_shape: Shape, classes: int) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels, height, width = input_shape
        first, second, third = WIDTHS
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(third)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(third * (height // 4) * (width // 4), 128)
        self.fc2 = nn.Linear(128, classes)
        initialise(self)

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        hidden = self.relu(self.bn1(self.conv1(images)))
        hidden = self.pool(self.relu(self.bn2(self.conv2(hidden))))
        hidden = self.pool(self.relu(self.bn3(self.conv3(hidden))))
        hidden = self.relu(self.fc1(hidden.flatten(1)))
        return self.fc2(hidden)  # type: ignore[no-any-return]  # a Linear returns a Tensor; torch types it Any


@architectures.register("digits-cnn")
@dataclasses.dataclass(frozen=True)
class DigitsCnnSettings(Architecture):
    """The demo's network."""

    in_channels: int = 1
    image_size: int = 8

    def build(self) -> nn.Module:
        """A new network in training mode."""
        return DigitsCnn(self.input_shape, self.classes)
