"""VGG-16 with BatchNorm for 32 × 32 images, in the three forms that the papers prune.

All have thirteen 3 × 3 convolutions without bias, each followed by BatchNorm and ReLU, in five
stages. They differ after the last stage: RNI averages the last 2 × 2 and has one Linear; Neuron
Merging averages and has a hidden Linear (`classifier=two-layer,pool=average`); MINT takes the
maximum and has a hidden Linear (`classifier=two-layer`). `vgg-small` is RNI's form with six
convolutions in four stages, which trains in a minute on a CPU.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.models.architecture import Architecture, Shape, architectures, initialise

Classifier = Literal["linear", "two-layer"]
Pool = Literal["average", "maximum"]
USUAL: dict[Classifier, Pool] = {"linear": "average", "two-layer": "maximum"}
Stages = tuple[
    tuple[int, ...], ...
]  # widths of the convolutions; every stage ends in a pool that halves height and width
STAGES: Stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SMALL: Stages = ((16,), (32,), (64, 64), (128, 128))


class Vgg16(nn.Module):
    """Convolutions `features.conv1` … `features.conv13`, then `classifier.linear1` (and
    `.linear2`).
    """

    def __init__(
        self,
        input_shape: Shape,
        classes: int,
        classifier: Classifier,
        stages: Stages = STAGES,
        pool: Pool | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels, height, width = input_shape
        averages = (pool or USUAL[classifier]) == "average"
        # rounded up, a last pool takes maps of one pixel as they are: smaller images work, too
        last_pool = (nn.AvgPool2d if averages else nn.MaxPool2d)(2, ceil_mode=True)
        self.features = _features(channels, stages, last_pool)
        shrink = 2 ** len(stages)
        flat = stages[-1][-1] * (height // shrink) * (width // shrink)
        self.classifier = (
            _linear(flat, classes) if classifier == "linear" else _two_layer(flat, classes)
        )
        initialise(self)

    def forward(
        self, images: Tensor
    ) -> Tensor:  # (batch, channels, height, width) -> (batch, classes)
        return self.classifier(self.features(images).flatten(1))  # type: ignore[no-any-return]  # torch types it Any


def _features(in_channels: int, stages: Stages, last_pool: nn.Module) -> nn.Sequential:
    features = nn.Sequential()
    number, previous = 0, in_channels
    for stage, widths in enumerate(stages, start=1):
        for width in widths:
            number += 1
            features.add_module(
                f"conv{number}", nn.Conv2d(previous, width, 3, padding=1, bias=False)
            )
            features.add_module(f"bn{number}", nn.BatchNorm2d(width))
            features.add_module(f"relu{number}", nn.ReLU())
            previous = width
        features.add_module(f"pool{stage}", last_pool if stage == len(stages) else nn.MaxPool2d(2))
    return features


def _linear(inputs: int, classes: int) -> nn.Sequential:
    classifier = nn.Sequential()
    classifier.add_module("linear1", nn.Linear(inputs, classes))
    return classifier


def _two_layer(inputs: int, classes: int, hidden: int = 512) -> nn.Sequential:
    classifier = nn.Sequential()
    classifier.add_module("linear1", nn.Linear(inputs, hidden))
    classifier.add_module("bn", nn.BatchNorm1d(hidden))
    classifier.add_module("relu", nn.ReLU())
    classifier.add_module("linear2", nn.Linear(hidden, classes))
    return classifier


@architectures.register("vgg16")
@dataclasses.dataclass(frozen=True)
class Vgg16Settings(Architecture):
    """VGG-16: `classifier` is "linear" (RNI, arXiv 2204.06404) or "two-layer" (Neuron Merging,
    arXiv 2010.13160, and MINT, arXiv 2003.08472); `pool`, the last one, is "average" or "maximum",
    and without a word what goes with the classifier: average with "linear", else maximum.
    """

    classifier: Classifier = "linear"
    pool: Pool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier not in ("linear", "two-layer"):
            raise SettingError(f"classifier is one of linear, two-layer; got {self.classifier!r}")
        if self.pool not in (None, "average", "maximum"):
            raise SettingError(f"pool is one of average, maximum; got {self.pool!r}")
        if self.image_size < 2 ** len(STAGES):
            raise SettingError(
                f"vgg16 halves the image five times: image_size must be at least {2 ** len(STAGES)}"
            )

    def build(self) -> nn.Module:
        """Weights from He's initialisation."""
        return Vgg16(self.input_shape, self.classes, self.classifier, pool=self.pool)


@architectures.register("vgg-small")
@dataclasses.dataclass(frozen=True)
class VggSmallSettings(Architecture):
    """Six convolutions (16, 32, 64, 64, 128, 128) and one Linear: VGG-16 in RNI's form, for trials
    on a CPU.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 2 ** len(SMALL):
            raise SettingError(
                "vgg-small halves the image four times: image_size must be at least "
                f"{2 ** len(SMALL)}"
            )

    def build(self) -> nn.Module:
        """Weights from He's initialisation."""
        return Vgg16(self.input_shape, self.classes, "linear", SMALL)
