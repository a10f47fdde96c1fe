"""Small networks of several kinds, trained in seconds, and two checkpoints, for benchmarks/guard.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import niwaki
from niwaki import data, models

Network = nn.Module
Made = tuple[Network, Tensor]  # inputs in a random order
COUNT = 512  # inputs that are handed out


def fit(
    network: Network, x: Tensor, goal: Tensor, loss: Callable[..., Tensor], steps: int = 300
) -> Network:
    """Adam on random batches of 64."""
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        optimiser.zero_grad()
        loss(network(x[rows]), goal[rows]).backward()  # type: ignore[no-untyped-call]  # torch has none
        optimiser.step()
    return network.eval()


def digits(root: Path, checkpoints: Path) -> Made:
    """Classifies 8 × 8 images."""
    x, y = _all(data.load("digits").split("train"))
    network = fit(models.build("digits-cnn"), x, y, F.cross_entropy)
    return network, x[torch.randperm(len(x))[:COUNT]]


def tones(root: Path, checkpoints: Path) -> Made:
    """Tells which of eight tones is in a noisy recording."""
    y = torch.randint(8, (2048,))
    time, phase = torch.arange(256) / 256, 6.28 * torch.rand(2048, 1)
    x = torch.sin(6.28 * (4 + 5 * y[:, None]) * time + phase) + 0.5 * torch.randn(2048, 256)
    network = nn.Sequential(
        nn.Conv1d(1, 16, 9, 2, 4),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 24, 9, 4, 4),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(96, 32),
        nn.GELU(),
        nn.Linear(32, 8),
    )
    return fit(network, x[:, None], y, F.cross_entropy), x[:COUNT, None]


class Restorer(nn.Module):
    """Adds to an image in [0, 1] what it lacks; no normalisation anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = x + self.body(x)
        return restored


def restorer(root: Path, checkpoints: Path) -> Made:
    clean = _all(data.load("digits").split("train"))[0]
    clean = (clean - clean.min()) / (clean.max() - clean.min())
    noisy = (clean + 0.2 * torch.randn_like(clean)).clamp(0, 1)
    return fit(Restorer(), noisy, clean, F.mse_loss), noisy[torch.randperm(len(noisy))[:COUNT]]


def detector(root: Path, checkpoints: Path) -> Made:
    """Puts out a map: is the middle of a bright square here, and how large is it?"""
    x, goal = 0.2 * torch.rand(2048, 1, 24, 24), torch.zeros(2048, 2, 6, 6)
    for image, wanted in zip(x, goal, strict=True):
        row, column, size = (int(torch.randint(n, ())) for n in (18, 18, 4))
        image[0, row : row + size + 3, column : column + size + 3] += 0.7
        at = (row + size // 2 + 1) // 4, (column + size // 2 + 1) // 4
        wanted[0][at], wanted[1][at] = 1, size / 3
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.BatchNorm2d(32),
        nn.SiLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.SiLU(),
        nn.Conv2d(32, 2, 1),
    )
    return fit(network, x, goal, F.mse_loss), x[:COUNT]


class Embedder(nn.Module):
    """Token numbers → which of two tokens stands more often."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 32), nn.Parameter(0.1 * torch.randn(12, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(self.tokens(x) + self.places).mean(1))
        return scores


def embedder(root: Path, checkpoints: Path) -> Made:
    x = torch.randint(20, (2048, 12))
    y = ((x < 5).sum(1) > (x >= 15).sum(1)).long()
    return fit(Embedder(), x, y, F.cross_entropy), x[:COUNT]


class Recurrent(nn.Module):
    """A sequence → a running mean and the largest value so far."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body = nn.Linear(3, 24), nn.GRU(24, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(torch.relu(self.first(x)))[0][:, -1])
        return out


def recurrent(root: Path, checkpoints: Path) -> Made:
    x = torch.randn(2048, 10, 3)
    goal = torch.stack([x.mean((1, 2)), x[..., 0].amax(1)], 1)
    return fit(Recurrent(), x, goal, F.mse_loss), x[:COUNT]


def lenet(root: Path, checkpoints: Path) -> Made:
    network = models.build("lenet-300-100", classes=10)
    niwaki.load_weights(network, checkpoints / "lenet-300-100.fashion_mnist.pth.tar")
    return network, _some(data.load("fashion-mnist", root).split("train"))


def resnet56(root: Path, checkpoints: Path) -> Made:
    network = models.build("resnet56:shortcut=projection", classes=10)
    niwaki.load_weights(network, checkpoints / "resnet56.cifar10.pth.tar")
    return network, _some(data.load("cifar10", root).split("train"))


NETWORKS = {
    "digits": digits,
    "tones": tones,
    "restorer": restorer,
    "detector": detector,
    "embedder": embedder,
    "recurrent": recurrent,
    "lenet": lenet,
    "resnet56": resnet56,
}


def _all(split: data.Dataset) -> tuple[Tensor, Tensor]:
    batches = list(split.batches(256))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _some(split: data.Dataset) -> Tensor:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:COUNT]
    return torch.cat([x for x, _ in split.take(order).batches(128)])
