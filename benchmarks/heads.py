"""What do half of the query and key dimensions of every head cost, and what half of the heads?

    python benchmarks/heads.py --data-root data --out benchmarks/records/heads.json

A small vision transformer (patches of 7 × 7, a class token, three blocks of width 64 with four heads
of 16 dimensions) is trained on 55,000 images of FashionMNIST for a minute on one core, with three
seeds. Then half of its heads go, or half of the dimensions of the queries and keys of every head,
without data and with 512 training images without labels. Accuracies are of all 10,000 test images;
nothing is trained after the cut. Without a repair, the dimensions are those whose weights are
largest, the same of all heads.
"""

from __future__ import annotations

import argparse
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
from niwaki.core.records import write_text_atomic

START, END = "<!-- rendered by benchmarks/heads.py -->", "<!-- end -->"
PAGE = Path(__file__).parents[1] / "docs" / "compensation.md"
WIDTH, HEADS, DEPTH, PATCH = 64, 4, 3, 7
STEPS, BATCH, RATE = 1500, 64, 2e-3
SEEN, HELD_OUT = 512, 5000  # training images for repairs; those that are not trained on
CUTS = {"half of the heads": "blocks.*.q", "half of the query and key dimensions": "blocks.*.q#2"}
REPAIRS = {
    "no repair": ("none", False),
    "no data": ("moments", False),
    "512 images": ("auto", True),
}


class Block(nn.Module):
    """Attention with projections of their own, and two layers behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        y = self.first(x)
        q, k, v = (
            layer(y).view(batch, places, self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(y.transpose(1, 2).reshape(batch, places, -1))
        out: Tensor = x + self.down(F.gelu(self.up(self.second(x))))
        return out


class Transformer(nn.Module):
    """Patches, a class token, positions, blocks, and a classifier of the token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(0.02 * torch.randn(1, (28 // PATCH) ** 2 + 1, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        out: Tensor = self.head(self.norm(self.blocks(x)[:, 0]))
        return out


def trained(x: Tensor, y: Tensor, seed: int) -> Transformer:
    """AdamW with one cosine of the rate."""
    torch.manual_seed(seed)
    network = Transformer()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,))
        optimiser.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]  # torch has none
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Per cent."""
    right = sum(
        int((network(some).argmax(1) == labels).sum())
        for some, labels in zip(x.split(500), y.split(500), strict=True)
    )
    return 100 * right / len(y)


def cells(network: nn.Module, seen: Tensor, test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Cut → data → accuracy after."""
    found: dict[str, Any] = {}
    for cut, layers in CUTS.items():
        for name, (repair, fitted) in REPAIRS.items():
            result = niwaki.prune(
                network,
                seen[:8],
                budget=0.5,
                only=layers,
                compensation=repair,
                calibration=list(seen.split(128)) if fitted else None,
            )
            found.setdefault(cut, {})[name] = accuracy(result.model, *test)
            left = sum(parameter.numel() for parameter in result.model.parameters())
        found[cut]["parameters"] = left / sum(each.numel() for each in network.parameters())
    return found


def as_markdown(record: dict[str, Any]) -> str:
    """Points lost, mean and range over the seeds."""
    head = ["what goes", "parameters left", *(f"points lost, {name}" for name in REPAIRS)]
    rows = []
    runs = list(record["runs"].values())
    for cut in CUTS:
        entries = [f"{runs[0][cut]['parameters']:.1%}"]
        for name in REPAIRS:
            lost = [run["whole"] - run[cut][name] for run in runs]
            entries.append(f"{statistics.mean(lost):.2f} ({min(lost):.2f} … {max(lost):.2f})")
        rows.append([cut, *entries])
    return as_table(head, rows, numbers=len(head) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", action="store_true", help="write the table anew; measure nothing")
    words = parser.parse_args()
    if words.page:
        write_between(PAGE, START, END, as_markdown(json.loads(words.out.read_text("utf-8"))))
        return
    torch.set_num_threads(1)
    source = data.load("fashion-mnist", words.data_root)
    (x, y), test = (_all(source.split(part)) for part in ("train", "test"))
    record: dict[str, Any] = {"runs": {}, "versions": versions(), "hardware": hardware()}
    for seed in range(words.seeds):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        kept, held = order[:-HELD_OUT], order[-HELD_OUT:]
        network = trained(x[kept], y[kept], seed)
        found = {"whole": accuracy(network, *test), **cells(network, x[held[:SEEN]], test)}
        record["runs"][str(seed)] = found
        print(seed, found, flush=True)
        write_text_atomic(words.out, json.dumps(record, indent=1) + "\n")
    print(as_markdown(record))


def _all(split: data.Dataset) -> tuple[Tensor, Tensor]:
    batches = list(split.batches(500))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


if __name__ == "__main__":
    main()
