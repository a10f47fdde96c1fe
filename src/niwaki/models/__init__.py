"""Networks by name: those of the three papers, written from the facts, and any
`package.module:factory` of the user's.

A model is an ordinary `nn.Module` that carries its `input_shape` and whose forward knows no channel
count, so that a pruned copy runs as it is.
"""

from niwaki.models.architecture import Architecture, architectures
from niwaki.models.digits_cnn import DigitsCnn
from niwaki.models.factory import (
    PROVENANCE,
    available,
    build,
    build_guarded,
    example_inputs,
    provenance,
)
from niwaki.models.mlp import Lenet300100, MnistMlp
from niwaki.models.resnet import PaddedShortcut, ResNet
from niwaki.models.vgg import Vgg16
from niwaki.models.wide_resnet import WideResNet

__all__ = [
    "PROVENANCE",
    "Architecture",
    "DigitsCnn",
    "Lenet300100",
    "MnistMlp",
    "PaddedShortcut",
    "ResNet",
    "Vgg16",
    "WideResNet",
    "architectures",
    "available",
    "build",
    "build_guarded",
    "example_inputs",
    "provenance",
]
