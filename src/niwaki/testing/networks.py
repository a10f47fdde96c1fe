"""Small networks that methods are tried on: each has something that a method may trip over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from niwaki.methods.base import Calibration


class Residual(nn.Module):
    """Convolutions with BatchNorm, a residual sum, a depthwise layer: groups of several layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.outer = nn.Conv2d(6, 8, 1, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images).relu()
        inner = self.depthwise(self.norm(self.inner(stream)).relu())
        logits: Tensor = self.head((stream + self.outer(inner)).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Two heads, LayerNorm and GELU: units of several channels, and statistics over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LayerNorm(8)
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)
        self.second = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.first(tokens)
        tokens = tokens + self.heads(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + self.down(nn.functional.gelu(self.up(self.second(tokens))))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def multilayer_perceptron() -> nn.Module:
    """Two hidden layers, one with BatchNorm, one without a bias."""
    return nn.Sequential(
        nn.Linear(6, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        nn.Linear(10, 7, bias=False),
        nn.ReLU(),
        nn.Linear(7, 4),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (multilayer_perceptron, (5, 6)),
    "residual": (Residual, (2, 3, 7, 7)),
    "attention": (Attention, (2, 5, 8)),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """One of them in float64 with random statistics, and inputs for it; the same at every call."""
    make, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double().eval()
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                nn.init.normal_(buffer, std=0.3)
            if name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)
        return model, torch.randn(shape, dtype=torch.float64)


def calibration(inputs: Tensor) -> Calibration:
    """Two batches like these inputs, with class numbers."""
    generator = torch.Generator().manual_seed(1)
    shape = (16, *inputs.shape[1:])
    batches = [
        (torch.randn(shape, generator=generator, dtype=inputs.dtype), torch.arange(16) % 4)
        for _ in range(2)
    ]
    return Calibration.labelled(batches)
