"""What every named network is told: how many classes it separates, and the shape of one image."""

from __future__ import annotations

import abc
import dataclasses

from torch import nn

from niwaki.core.errors import SettingError
from niwaki.core.registry import Registry

Shape = tuple[int, int, int]  # channels, height, width of one image


@dataclasses.dataclass(frozen=True)
class Architecture(abc.ABC):
    """The settings of a network; `build()` makes it, with fresh weights from torch's global
    generator.
    """

    classes: int = 10
    in_channels: int = 3
    image_size: int = 32  # pixels, height and width

    def __post_init__(self) -> None:
        for field in ("classes", "in_channels", "image_size"):
            if getattr(self, field) < 1:
                raise SettingError(f"{field} must be at least 1; got {getattr(self, field)}")

    @property
    def input_shape(self) -> Shape:
        """Channels, height and width of one input image."""
        return self.in_channels, self.image_size, self.image_size

    @abc.abstractmethod
    def build(self) -> nn.Module:
        """A new network in training mode."""


architectures: Registry[Architecture] = Registry("model")


def initialise(model: nn.Module) -> None:
    """He's initialisation for a convolutional network, in place.

    Convolutions N(0, 2 / (k² · out)), BatchNorm scale 1 and shift 0, Linear N(0, 0.01²) with bias
    0: what both VGG-16 and the CIFAR residual networks of the three papers start from (arXiv
    1502.01852, 2204.06404).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
