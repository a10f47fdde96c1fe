"""Neuron Merging's own checkpoints give their published accuracies before anything is pruned (arXiv
2010.13160).
"""

from pathlib import Path

import pytest
import torch

from niwaki import data, models
from niwaki import io as checkpoint


@pytest.mark.parametrize(
    ("model_spec", "weights", "data_spec", "published"),
    [
        ("lenet-300-100", "lenet-300-100.fashion_mnist.pth.tar", "fashion-mnist", 89.80),
        ("resnet56:shortcut=projection", "resnet56.cifar10.pth.tar", "cifar10", 93.88),
    ],
)
def test_published_baseline(
    shared_root: Path, model_spec: str, weights: str, data_spec: str, published: float
) -> None:
    model = models.build(model_spec).eval()
    checkpoint.load_weights(model, shared_root / "checkpoints" / weights)
    if "resnet" in model_spec:  # a third less time than in torch's own order
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
    test = data.load(data_spec, shared_root / "data").split("test")
    with torch.inference_mode():
        right = sum(
            int((model(images).argmax(1) == labels).sum()) for images, labels in test.batches(50)
        )
    assert len(test) == 10_000
    assert right / 100 == published  # percent of 10,000 images, so exact
