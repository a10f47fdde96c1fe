"""Accuracy without any fine-tuning, by compensation, side by side with the published numbers.

    python benchmarks/compensation.py --data-root data --checkpoints checkpoints --out
    benchmarks/records/compensation.json

LeNet-300-100 on FashionMNIST and ResNet-56 on CIFAR-10 (first convolution of every block), the
checkpoints of Kim et al., Neuron Merging, 2020. Calibration inputs are drawn from the training
images by seed 0 and used without their labels; no setting was chosen on the test images, which are
only read here. Cells are written one by one, so that a run that is cut short leaves what it has;
cells that the file holds already are not run again. --limit takes the first test images only, and
the record says so.

    python benchmarks/compensation.py --cost --data-root data --checkpoints checkpoints --out
    compensation.json

times `reconstruct` on ResNet-56 with 1,024 images beside plain forward passes over the same images,
in turns, in one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import niwaki
from niwaki import data, models
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.recovery import recover

LENET, RESNET = "lenet-300-100", "resnet56"
RATIOS = (0.5, 0.6, 0.7, 0.8)
FLOORS = {  # what this project asks of itself, and what was published for merging
    (LENET, "l1", "reconstruct", 512): dict(zip(RATIOS, (88.9, 87.9, 86.2, 82.9), strict=True)),
    (LENET, "reconstruct", "reconstruct", 5000): dict(
        zip(RATIOS, (89.1, 88.4, 87.5, 86.1), strict=True)
    ),
    (LENET, "l1", "merge", 0): dict(zip(RATIOS, (88.69, 86.92, 82.75, 80.02), strict=True)),
    (RESNET, "l1", "reconstruct", 1024): {0.3: 90.8},
    (RESNET, "l1", "reconstruct:order=sequential", 1024): {0.5: 76.0},
    (RESNET, "l1", "reconstruct:order=parallel", 1024): {0.5: 76.0},
    (RESNET, "l1", "reconstruct:order=parallel + batchnorm", 1024): {0.5: 84.5},
}


@dataclass(frozen=True)
class Cell:
    """One network to make: compensation and recoveries are joined by " + ".

    Attributes:
        divided: the share is not every layer's but divided between them by loss (`scope="auto"`):
            "channels" for the same share of all channels, "params" for as many parameters as the
            share of every layer leaves.
    """

    network: str
    criterion: str
    ratio: float
    method: str
    calibration: int
    divided: str = ""

    @property
    def key(self) -> str:
        words = f"{self.network} {self.criterion} {self.ratio:g} {self.method} {self.calibration}"
        return f"{words} divided by loss, {self.divided}" if self.divided else words


def cells() -> Iterator[Cell]:
    """All cells, the quick ones first."""
    for criterion, ratio in product(("l1", "l2", "l2-gm"), RATIOS):
        for method in ("none", "merge", "match", "fold", "moments"):
            yield Cell(LENET, criterion, ratio, method, 0)
        yield Cell(LENET, criterion, ratio, "reconstruct", 512)
    for ratio in RATIOS:
        for method in ("none", "merge", "fold", "moments"):
            yield Cell(LENET, "fold", ratio, method, 0)
        for method in ("reconstruct", "reconstruct + refit", "reconstruct + lbfgs"):
            yield Cell(LENET, "reconstruct", ratio, method, 5000)
    for ratio, divided in product(RATIOS, ("channels", "params")):
        for method in ("reconstruct", "reconstruct + lbfgs"):
            yield Cell(LENET, "reconstruct", ratio, method, 5000, divided)
        yield Cell(LENET, "fold", ratio, "moments", 0, divided)
    yield from resnet_cells()


def resnet_cells() -> Iterator[Cell]:
    """Those that take minutes each."""
    yield Cell(RESNET, "l1", 0.3, "reconstruct", 1024)
    for ratio, method in product((0.2, 0.3, 0.4, 0.5, 0.6), ("merge", "moments")):
        yield Cell(RESNET, "l1", ratio, method, 0)
    yield Cell(RESNET, "l1", 0.5, "none + batchnorm", 1024)
    for order in ("sequential", "parallel"):
        for more in ("", " + batchnorm"):
            yield Cell(RESNET, "l1", 0.5, f"reconstruct:order={order}{more}", 1024)
    for ratio in (0.5, 0.3, 0.6):
        yield Cell(RESNET, "l1", ratio, "reconstruct + refit", 512)
    for ratio in (0.3, 0.5):
        yield Cell(RESNET, "reconstruct", ratio, "reconstruct", 1024)
    for ratio, method in product((0.3, 0.5), ("match", "fold")):
        yield Cell(RESNET, "l1", ratio, method, 0)
    for criterion in ("l1", "reconstruct"):
        yield Cell(RESNET, criterion, 0.5, "reconstruct + lbfgs", 512)
    for divided in ("channels", "params"):
        for method in ("reconstruct", "reconstruct + lbfgs"):
            yield Cell(RESNET, "reconstruct", 0.5, method, 1024, divided)
        yield Cell(RESNET, "fold", 0.5, "moments", 0, divided)
    for divided in ("", "channels"):
        yield Cell(RESNET, "reconstruct", 0.5, "moments", 0, divided)


class Bench:
    """The networks and their images, read once."""

    def __init__(self, data_root: Path, checkpoints: Path, limit: int | None) -> None:
        self._root, self._checkpoints, self._limit = data_root, checkpoints, limit
        self._held: dict[str, tuple[nn.Module, data.Dataset]] = {}

    def network(self, name: str) -> tuple[nn.Module, data.Dataset]:
        if name not in self._held:
            spec, images, file = {
                LENET: (LENET, "fashion-mnist", "lenet-300-100.fashion_mnist.pth.tar"),
                RESNET: ("resnet56:shortcut=projection", "cifar10", "resnet56.cifar10.pth.tar"),
            }[name]
            model = models.build(spec, classes=10)
            niwaki.load_weights(model, self._checkpoints / file)
            self._held[name] = (
                model.to(memory_format=torch.channels_last).eval(),
                data.load(images, self._root),
            )
        return self._held[name]

    def calibration(self, cell: Cell) -> niwaki.Calibration | None:
        if not cell.calibration:
            return None
        train = self.network(cell.network)[1].split("train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        chosen = train.take(order[: cell.calibration])
        batches = [images for images, _ in chosen.batches(128)]
        return niwaki.Calibration.of(batches)

    def run(self, cell: Cell) -> dict[str, Any]:
        model, images = self.network(cell.network)
        graph = niwaki.trace(model, models.example_inputs(model))
        only = () if cell.network == LENET else ("layer*.conv1",)
        rounding: Any = "round" if cell.network == LENET else "floor"
        calibration = self.calibration(cell)
        start = time.perf_counter()
        scores = niwaki.score(graph, cell.criterion, calibration=calibration)
        selection = niwaki.Selection(only=only, rounding=rounding)
        plan = niwaki.select(niwaki.Scores(graph, scores), cell.ratio, selection).plan
        if cell.divided:
            kept = {name: len(units) for name, units in plan.kept.items()}
            gone = 1 - graph.count_params(kept) / graph.count_params()
            budget = cell.ratio if cell.divided == "channels" else f"params={gone - 1e-6}"
            first = cell.method.split(" + ")[0]
            plan = niwaki.prune(
                model,
                models.example_inputs(model),
                budget,
                criterion=cell.criterion,
                compensation=first,
                calibration=calibration,
                selection=dataclasses.replace(selection, scope="auto"),
            ).plan
        plan = niwaki.refine(graph, plan, cell.criterion, calibration=calibration)
        first, *steps = cell.method.split(" + ")
        found = niwaki.compensate(niwaki.Cut(graph, plan), first, calibration=calibration)
        pruned = niwaki.shrink(niwaki.Cut(graph, plan, found.mixings))
        niwaki.check(niwaki.Cut(graph, plan, found.mixings), pruned)
        for step in steps:
            recover(Cut(graph, plan), pruned, step, calibration=calibration)
        seconds = time.perf_counter() - start
        accuracy, count = self.accuracy(pruned, images)
        floor = FLOORS.get((cell.network, cell.criterion, cell.method, cell.calibration), {}).get(
            cell.ratio
        )
        return {
            **asdict(cell),
            "accuracy": accuracy,
            "floor": floor,
            "images": count,
            "seconds": round(seconds, 1),
        }

    def accuracy(self, model: nn.Module, images: data.Dataset) -> tuple[float, int]:
        split = images.split("test")
        limit = self._limit if images.name == "cifar10" else None
        found = niwaki.evaluate(model, split.batches(200, limit=limit))
        return round(100 * found.accuracy, 2), min(len(split), limit or len(split))


def cost(bench: Bench, rounds: int = 5) -> dict[str, Any]:
    """Seconds of forward passes and of finding all mixings, by memory layout, medians of rounds
    that take turns.
    """
    model, images = bench.network(RESNET)
    found: dict[str, Any] = {}
    for layout in ("channels_last", "contiguous"):
        model = model.to(
            memory_format=getattr(torch, f"{layout}_format" if layout == "contiguous" else layout)
        )
        graph = niwaki.trace(model, models.example_inputs(model))
        plan = niwaki.select(
            niwaki.Scores(graph, niwaki.score(graph, "l1")),
            0.5,
            niwaki.Selection(only=("layer*.conv1",), rounding="floor"),
        ).plan
        batches = [x for x, _ in images.split("train").take(torch.arange(1024)).batches(128)]
        seen = niwaki.Calibration.of(batches)

        def forwards(model: nn.Module = model, batches: list[torch.Tensor] = batches) -> None:
            with torch.no_grad():
                for x in batches:
                    model(x)

        work: dict[str, Callable[[], object]] = {"forward": forwards}
        for order in ("parallel", "sequential"):
            work[order] = partial(
                niwaki.compensate,
                niwaki.Cut(graph, plan),
                f"reconstruct:order={order}",
                calibration=seen,
            )
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):
            for name, do in work.items():
                start = time.perf_counter()
                do()
                seconds[name].append(time.perf_counter() - start)
        medians = {
            name: statistics.median(times[1:]) for name, times in seconds.items()
        }  # the first warms up
        found[layout] = {name: round(value, 3) for name, value in medians.items()}
        ratios = {name: value / medians["forward"] for name, value in medians.items()}
        print(
            f"{layout}: "
            + ", ".join(f"{name} {medians[name]:.2f} s ({ratios[name]:.2f} x)" for name in medians),
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="first images of the CIFAR-10 test set only")
    parser.add_argument("--only", default="", help="cells whose name starts so")
    parser.add_argument("--cost", action="store_true", help="time the fits; measure no accuracy")
    words = parser.parse_args()
    record = json.loads(words.out.read_text()) if words.out.exists() else {"cells": {}}
    record |= {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    bench = Bench(words.data_root, words.checkpoints, words.limit)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    if words.cost:
        record["cost"] = cost(bench)
        words.out.write_text(json.dumps(record, indent=1) + "\n")
        return
    for cell in cells():
        if cell.key in record["cells"] or not cell.key.startswith(words.only):
            continue
        record["cells"][cell.key] = found = bench.run(cell)
        floor = "" if found["floor"] is None else f"  (asked for {found['floor']})"
        print(f"{cell.key:<60} {found['accuracy']:6.2f}{floor}", flush=True)
        words.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
