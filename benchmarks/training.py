"""Training throughput: niwaki's loop against a plain torch loop with a DataLoader, side by side in
one run.

    python benchmarks/training.py --data-root data --device cpu --seconds 60
    python benchmarks/training.py --data-root data --device cuda --batch 512 --precision bf16
    --compile

The plain loop is what people write: torchvision-style random crop and flip of one image at a time
in DataLoader workers, float32 normalisation, SGD. Both train the same network from the same weights
with the same batch size, in turns, so that a loaded machine slows both. Printed: images/s of each
(best and median of the turns) and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from niwaki import data, models
from niwaki.core.provenance import hardware, versions
from niwaki.data import HeldSplit
from niwaki.training import Augment, Feed, FeedSettings, TrainSettings, fit

PAD = 4


class PlainImages(Dataset[tuple[Tensor, int]]):
    """One image at a time: padded, cropped, mirrored, normalised."""

    def __init__(self, split: HeldSplit, length: int) -> None:
        self.images, self.labels, self.length = split.images, split.labels, length
        self.mean, self.std = (
            torch.tensor(values).view(3, 1, 1) for values in (split.mean, split.std)
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padded = F.pad(self.images[index], (PAD, PAD, PAD, PAD))
        down, right = (int(torch.randint(0, 2 * PAD + 1, ())) for _ in range(2))
        image = padded[:, down : down + 32, right : right + 32]
        image = image.flip(2) if torch.rand(()) < 0.5 else image
        return (image.float() / 255 - self.mean) / self.std, int(self.labels[index])


def plain_loop(model: nn.Module, split: HeldSplit, given: argparse.Namespace, images: int) -> float:
    """Images a second of one epoch."""
    device = torch.device(given.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    loader = DataLoader(
        PlainImages(split, images),
        given.batch,
        shuffle=True,
        num_workers=given.workers,
        drop_last=True,
    )
    model.train()
    start, seen = time.perf_counter(), 0
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        loss.item()  # a progress bar shows it
        seen += len(targets)
    return seen / (time.perf_counter() - start)


def our_loop(
    model: nn.Module, split: HeldSplit, given: argparse.Namespace, images: int, epochs: int = 1
) -> float:
    """Images a second of the last of some epochs (the first compiles)."""
    part = split.take(torch.arange(images)).to(given.device)
    feed = Feed(part, FeedSettings(given.batch, Augment(PAD, "zero"), drop_last=True))
    settings = TrainSettings(
        epochs,
        lr=0.01,
        weight_decay=1e-4,
        precision=given.precision,
        channels_last=not given.plain_layout,
        compile=given.compile,
    )
    history = fit(model, feed, settings=settings, progress=False)
    return history.epochs[-1].samples / history.epochs[-1].seconds


def turns(name: str, split: HeldSplit, given: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Images/s of the plain loop and of ours, again and again until the time is up."""
    images, until = given.images, time.perf_counter() + given.seconds
    while time.perf_counter() < until:
        torch.manual_seed(0)
        plain = plain_loop(models.build(name).to(given.device), split, given, images)
        torch.manual_seed(0)
        ours = our_loop(
            models.build(name).to(given.device),
            split,
            given,
            images,
            epochs=3 if given.compile else 1,
        )
        yield plain, ours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--models", default="resnet56,vgg16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=640, help="a turn")
    parser.add_argument("--seconds", type=float, default=60, help="a network")
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--precision", default="no")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain-layout", action="store_true", help="ours without channels-last")
    given = parser.parse_args()
    split = data.load("cifar10", given.data_root).split("train")
    assert isinstance(split, HeldSplit)
    print(f"{hardware()} {versions()} batch {given.batch}, {given.images} images a turn")
    for name in given.models.split(","):
        plain, ours = zip(*turns(name, split, given), strict=True)
        ratio = statistics.median(ours) / statistics.median(plain)
        print(
            f"{name}: plain {statistics.median(plain):,.0f} (best {max(plain):,.0f}), "
            f"niwaki {statistics.median(ours):,.0f} (best {max(ours):,.0f}) images/s; ratio "
            f"{ratio:.2f} over {len(plain)} turns"
        )


if __name__ == "__main__":
    main()
