"""Two processes on the CPU train as one does with the same batches, and what is saved can be
resumed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from needed import needs

needs("accelerate")

CODE = """
import json, sys, torch
from pathlib import Path
from torch import nn
from niwaki.data import HeldSplit, Normalization
from niwaki.measure import evaluate
from niwaki.training import Augment, Feed, FeedSettings, RunFolder, TrainSettings, fit

torch.set_num_threads(1)
folder, batch = Path(sys.argv[1]), int(sys.argv[2])
generator = torch.Generator().manual_seed(7)
labels = torch.randint(0, 3, (64,), generator=generator)
images = torch.randint(0, 256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
split = HeldSplit(images, labels, Normalization((0.4,) * 3, (0.3,) * 3))
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3)).double()
feed = Feed(split, FeedSettings(batch_size=batch, augment=Augment(1)))
batches = lambda epoch: [(x.double(), y) for x, y in feed(epoch)]
history = fit(model, batches, settings=TrainSettings(epochs=3, lr=0.05, accumulate=2, clip_norm=1.0),
              validate=lambda m: evaluate(m, [(x.double(), y) for x, y in split.batches(64)]),
              penalty=lambda m: 1e-3 * m[0].weight.abs().sum(),
              folder=RunFolder(folder, resume=True, every=0, trackers=()), progress=False)
if "0" == __import__("os").environ.get("RANK", "0"):
    print(json.dumps({"losses": [e.loss for e in history.epochs], "validation": [e.validation.loss for e in history.epochs],
                      "weights": [p.double().sum().item() for p in model.parameters()], "forward": "forward" in vars(model)}))
"""


def launch(processes: int, folder: Path) -> dict[str, list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={processes}",
        f"--master-port={port}",
    ]
    script = folder.with_suffix(".py")
    script.write_text(CODE)
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(script), str(folder), "16"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_two_processes_reach_the_loss_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """16 images a step in both: one process takes them all, each of two takes 8."""
    one, two = launch(1, tmp_path / "one"), launch(2, tmp_path / "two")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-9)
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-9)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-9)
    assert not two["forward"]
    assert launch(2, tmp_path / "two") == two  # read back by both, not trained again
