"""Two processes on the CPU train as one does with the same batches, and what is saved can be
resumed.
"""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from needed import needs
from torch import nn

from niwaki.data import HeldSplit, Normalization
from niwaki.measure import evaluate
from niwaki.training import Augment, Feed, FeedSettings, RunFolder, TrainSettings, fit

needs("accelerate")


def train(folder: Path, place: dict[str, str], line: Connection[Any, Any]) -> None:
    """What every process does; the first one sends what it saw."""
    os.environ.update(place, ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (64,), generator=generator)
    images = torch.randint(0, 256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
    split = HeldSplit(images, labels, Normalization((0.4,) * 3, (0.3,) * 3))
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3)
    model = nn.Sequential(
        first, nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)
    ).double()
    feed = Feed(split, FeedSettings(batch_size=16, augment=Augment(1)))
    history = fit(
        model,
        lambda epoch: [(x.double(), y) for x, y in feed(epoch)],
        settings=TrainSettings(epochs=3, lr=0.05, accumulate=2, clip_norm=1.0),
        validate=lambda m: evaluate(m, [(x.double(), y) for x, y in split.batches(64)]),
        penalty=lambda m: 1e-3 * first.weight.abs().sum(),
        folder=RunFolder(folder, resume=True, every=0, trackers=()),
        progress=False,
    )
    if place.get("RANK", "0") == "0":
        validated = [epoch.validation for epoch in history.epochs]
        line.send(
            {
                "losses": [epoch.loss for epoch in history.epochs],
                "validation": [seen.loss for seen in validated if seen is not None],
                "weights": [p.double().sum().item() for p in model.parameters()],
                "forward": "forward" in vars(model),
            }
        )


def launch(processes: int, folder: Path) -> dict[str, list[float]]:
    """As torchrun begins them, but that they need not import torch anew."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = forked.context()
    ours, theirs = context.Pipe()
    started = []
    for rank in map(str, range(processes)):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        words = (folder, place if processes > 1 else {}, theirs)
        started.append(context.Process(target=train, args=words))
        started[-1].start()
    theirs.close()
    result: dict[str, list[float]] = ours.recv() if ours.poll(300) else {}
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * processes
    return result


def test_two_processes_reach_the_loss_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """16 images a step in both: one process takes them all, each of two takes 8."""
    one, two = launch(1, tmp_path / "one"), launch(2, tmp_path / "two")
    assert len(one["losses"]) == len(one["validation"]) == 3
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-9)
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-9)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-9)
    assert not two["forward"]
    assert launch(2, tmp_path / "two") == two  # read back by both, not trained again
