"""How long a row would take that was not run: computed, not measured.

Multiply-adds of the training over those that one core did a second where training was measured:
`benchmarks/records/training_options.json`, ResNet-20 at 405.1 images a second, channels-last. A
training step counts as three forward passes: one forward, and twice as much backward.

Example: 20 epochs of 50,000 images at 125.5 M multiply-adds are 3·20·50,000·125.5 M = 3.77e14;
at 4.93e10 a second 2.1 hours.
"""

from __future__ import annotations

STEP = 3  # forward passes that a training step is worth
MACS = {  # multiply-adds of one image, as `niwaki.count_macs` has them
    "mnist-mlp": 545_000,
    "resnet20": 40_551_040,
    "resnet50": 4_089_184_256,
    "resnet56": 125_485_696,
    "vgg16": 313_201_664,
    "vgg-small": 8_705_024,
    "wide-resnet-40-4": 1_298_582_016,
}
PACE = STEP * MACS["resnet20"] * 405.1  # multiply-adds a second of one core
IMAGES = {"mnist": 54_000, "cifar10": 45_000, "cifar100": 45_000, "imagefolder": 1_153_050}


def network(spec: str) -> str:
    """The plain name of a network.

    >>> network("vgg16:classifier=two-layer"), network("timm:resnet50")
    ('vgg16', 'resnet50')
    """
    first, _, rest = spec.partition(":")
    return rest if first in ("timm", "torchvision") else first


def training_hours(spec: str, data: str, epochs: int, passes: int = STEP) -> float:
    """Hours of one core for so many epochs of nine tenths of the training images.

    Args:
        passes: forward passes that a step is worth; one more where a teacher runs along.
    """
    images = IMAGES[data.partition(":")[0]]
    return passes * MACS[network(spec)] * images * epochs / PACE / 3600
