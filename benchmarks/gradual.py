"""Gradual pruning against one cut, at equal epochs.

A small convolutional network is trained; then it has the same epochs, the same learning rates and
the same budget twice: cut at once before them, or in four cuts while they go on; and a third time
with the units pressed down before each cut (GReg). Accuracy is of test images that nothing was
trained or chosen on; there is no choice of epoch: the last one counts.

    python benchmarks/gradual.py --data-root /path/to/data
    python benchmarks/gradual.py --page     # the table of the guide, from the record
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pages import as_table, write_between
from torch import Tensor, nn

import niwaki
from niwaki import data
from niwaki.core.provenance import hardware, versions

RECORD = Path(__file__).parent / "records" / "gradual.json"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "training-loops.md"
START, END = "<!-- from benchmarks/records/gradual.json -->", "<!-- end -->"
FIRST, AFTER, BATCH = 10, 6, 64  # epochs before and while pruning
WAYS: dict[str, dict[str, Any]] = {
    "at once": {"shape": "one-shot", "begin": 0},
    "cubic, 4 cuts": {"shape": "cubic", "times": 4, "begin": 0.0, "end": 0.5},
    "cubic, 4 cuts, pressed": {
        "shape": "cubic", "times": 4, "begin": 0.12, "end": 0.5, "press": "greg:reg=0.05,every=5"
    },
}  # fmt: skip
Set = tuple[Tensor, Tensor]


def network(channels: int, width: int = 24) -> nn.Sequential:
    """Three convolutions."""

    def part(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *part(channels, width), *part(width, width), nn.MaxPool2d(2), *part(width, 2 * width),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10),
    )  # fmt: skip


def sets(name: str, root: Path | None) -> tuple[Set, Set]:
    """Training and test images with their classes, in tensors; of CIFAR-10 a part."""
    source = data.load(name) if root is None else data.load(name, root=root)
    limits = {"digits": (None, None), "cifar10": (3000, 2000)}[name]

    def whole(split: str, limit: int | None) -> Set:
        batches = source.split(split).batches(500)
        enough = None if limit is None else limit // 500
        images, classes = zip(*itertools.islice(batches, enough), strict=True)
        return torch.cat(images), torch.cat(classes)

    return whole("train", limits[0]), whole("test", limits[1])


def train(
    model: nn.Module, examples: Set, epochs: int, seed: int, rate: float, **way: Any
) -> nn.Module:
    """SGD with a cosine; pruned on the way, where a way is given."""
    images, classes = examples
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gradual = (
        niwaki.schedule(model, images[:2], steps=steps, optimizer=optimizer, probes=False, **way)
        if way
        else None
    )
    chance = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=chance)
        for part in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), classes[part]).backward()
            optimizer.step()
            rates.step()
            if gradual is not None:
                gradual.step()
    return model.eval()


def accuracy(model: nn.Module, examples: Set) -> float:
    with torch.no_grad():
        right = model(examples[0]).argmax(1) == examples[1]
    return float(right.float().mean())


def measured(name: str, root: Path | None, seeds: int, budgets: list[str]) -> list[dict[str, Any]]:
    """A row a budget and way."""
    learn, test = sets(name, root)
    rows: dict[tuple[str, str], list[float]] = {}
    first = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = train(network(learn[0].shape[1]), learn, FIRST, seed, 0.05)
        first.append(accuracy(model, test))
        for budget in budgets:
            for way, settings in WAYS.items():
                small = train(
                    copy.deepcopy(model), learn, AFTER, 100 + seed, 0.02, budget=budget, **settings
                )
                rows.setdefault((budget, way), []).append(accuracy(small, test))
                print(name, seed, budget, way, rows[budget, way][-1], flush=True)
    return [{"data": name, "budget": "none", "way": "trained", "accuracy": first}] + [
        {"data": name, "budget": budget, "way": way, "accuracy": found}
        for (budget, way), found in rows.items()
    ]


def as_markdown(record: dict[str, Any]) -> str:
    """Means, and lowest to highest of the seeds."""
    rows = []
    for row in record["rows"]:
        low, mean, high = (f(row["accuracy"]) for f in (min, statistics.mean, max))
        said = f"{mean:.2%} ({low:.2%} – {high:.2%})"
        rows.append([row["data"], row["budget"], row["way"], said])
    return as_table(["data", "removed", "how", "accuracy, mean (lowest – highest)"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the guide's table, run nothing")
    asked = parser.parse_args()
    if asked.page:
        record = json.loads(asked.out.read_text(encoding="utf-8"))
        write_between(PAGE, START, END, as_markdown(record))
        return
    torch.set_num_threads(1)
    rows = measured("digits", None, asked.seeds, ["macs=0.7", "macs=0.9"])
    rows += measured("cifar10", asked.data_root, asked.seeds, ["macs=0.7", "macs=0.9"])
    record = {
        "epochs": [FIRST, AFTER], "seeds": asked.seeds, "rows": rows,
        "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
    print(as_markdown(record))
    asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
