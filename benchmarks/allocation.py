"""How a budget is divided: ResNet-56 on CIFAR-10, the whole network, no training.

    python benchmarks/allocation.py --data-root data --checkpoints checkpoints --out
    benchmarks/records/allocation.json

Scopes local, global, cost, quick and auto, 30 and 50 % of the multiply-adds gone, with 1,024
training images without their labels (criterion and compensation `reconstruct`) and without any data
(`moments`); and `niwaki.prune` with nothing said but the budget, beside the same in equal shares.
Images are drawn by seed 0; the 10,000 test images are only read at the end. Cells are written one by
one, and those that the file holds are not run again; scores and the curves of auto are worked out
once for both budgets, so the seconds of a cell are those of dividing, repairing and checking alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pages import as_table, write_between

import niwaki
from niwaki import data, models
from niwaki.methods.base.criterion import as_criterion, scored
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.distortion import with_curves

START, END = "<!-- rendered by benchmarks/allocation.py -->", "<!-- end -->"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "budgets.md"
SCOPES = ("auto", "quick", "local", "cost", "global")
DEFAULTS = {"prune": None, "prune, equal shares": "local"}  # by the whole of niwaki.prune
BUDGETS = ("macs=0.5", "macs=0.3")


@dataclass(frozen=True)
class Cell:
    """One network to make."""

    scope: Any
    budget: str
    inputs: int
    recovery: str = ""

    @property
    def key(self) -> str:
        return (
            f"{self.inputs} {self.budget} {self.scope}{' + ' * bool(self.recovery)}{self.recovery}"
        )


def cells() -> Iterator[Cell]:
    """All cells, the most telling first."""
    for scope in (*DEFAULTS, *SCOPES):
        for inputs in (1024, 0):
            yield from (Cell(scope, budget, inputs) for budget in BUDGETS)
        if scope == "auto":
            yield Cell(scope, "macs=0.5", 1024, "lbfgs")


class Bench:
    """The network, its images, and what was worked out for all budgets."""

    def __init__(self, data_root: Path, checkpoints: Path) -> None:
        self.model = models.build("resnet56:shortcut=projection", classes=10)
        niwaki.load_weights(self.model, checkpoints / "resnet56.cifar10.pth.tar")
        self.model = self.model.to(memory_format=torch.channels_last).eval()
        self._images = data.load("cifar10", data_root)
        self._graph = niwaki.trace(self.model, models.example_inputs(self.model))
        self._scores: dict[int, niwaki.Scores] = {}

    def calibration(self, count: int) -> niwaki.Calibration | None:
        if not count:
            return None
        train = self._images.split("train")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        chosen = train.take(order[:count])
        return niwaki.Calibration.of([images for images, _ in chosen.batches(128)])

    def scores(self, cell: Cell) -> niwaki.Scores:
        """Of all groups, with curves where the scope reads them."""
        if cell.inputs not in self._scores:
            seen = self.calibration(cell.inputs)
            evidence = Evidence(self._graph, seen, torch.Generator().manual_seed(0))
            self._scores[cell.inputs] = scored(as_criterion("reconstruct"), evidence)
        scores = self._scores[cell.inputs]
        if cell.scope == "auto" and not scores.curves:
            names = [group.name for group in self._graph.groups]
            self._scores[cell.inputs] = scores = with_curves(scores, niwaki.Auto(), names)
        return scores

    def run(self, cell: Cell) -> dict[str, Any]:
        if cell.scope in DEFAULTS:
            return self.of_prune(cell)
        scores = self.scores(cell)
        start = time.perf_counter()
        plan = niwaki.select(scores, cell.budget, niwaki.Selection(scope=cell.scope)).plan
        evidence = scores.evidence
        assert evidence is not None
        plan = as_criterion("reconstruct").refine(plan, evidence)
        method = "reconstruct" if cell.inputs else "moments"
        plain = niwaki.Cut(self._graph, plan, evidence=evidence)
        cut = niwaki.compensate(plain, method)
        pruned = niwaki.shrink(cut)
        niwaki.check(cut, pruned)
        if cell.recovery:
            seen = self.calibration(cell.inputs)
            niwaki.recover(cut, pruned, cell.recovery, calibration=seen, seed=0)
        return self.judged(cell, pruned, plan, time.perf_counter() - start)

    def of_prune(self, cell: Cell) -> dict[str, Any]:
        """By `niwaki.prune` with nothing said but the budget, or equal shares too."""
        scope = DEFAULTS[cell.scope]
        start = time.perf_counter()
        result = niwaki.prune(
            self.model,
            self._graph.inputs,
            cell.budget,
            calibration=self.calibration(cell.inputs),
            **({} if scope is None else {"scope": scope}),
        )
        seconds = time.perf_counter() - start
        said = [note for note in result.record.notes if note.startswith(("divided", "equal"))]
        return {**self.judged(cell, result.model, result.plan, seconds), "notes": said}

    def judged(
        self, cell: Cell, pruned: torch.nn.Module, plan: niwaki.Plan, seconds: float
    ) -> dict[str, Any]:
        """What a cell's record says."""
        found = niwaki.evaluate(pruned, self._images.split("test").batches(200))
        counts = {name: len(kept.units) for name, kept in plan.items()}
        return {
            **asdict(cell),
            "accuracy": round(100 * found.accuracy, 2),
            "macs": round(self._graph.count_macs(counts) / self._graph.count_macs(), 4),
            "counts": counts,
            "seconds": round(seconds, 1),
        }


def as_markdown(record: dict[str, Any]) -> str:
    """The cells that there are, a row a scope."""
    shown = {(c["scope"], c["recovery"]) for c in record["cells"].values()}
    columns = [(inputs, budget) for inputs in (1024, 0) for budget in reversed(BUDGETS)]
    heads = [
        f"{budget}, {f'{inputs:,} inputs' if inputs else 'no data'}" for inputs, budget in columns
    ]
    rows = []
    ways = ((scope, step) for scope in (*DEFAULTS, *SCOPES) for step in ("", "lbfgs"))
    for scope, recovery in (way for way in ways if way in shown):
        row = [named(scope, recovery)]
        for inputs, budget in columns:
            cell = record["cells"].get(Cell(scope, budget, inputs, recovery).key)
            row.append(f"{cell['accuracy']:.2f}" if cell else "–")
        rows.append(row)
    return as_table(["how", *heads], rows)


def named(scope: str, recovery: str) -> str:
    """How a network was made, for the page."""
    if scope in DEFAULTS:
        said = DEFAULTS[scope]
        more = "nothing else" if said is None else f'`scope="{said}"`'
        return f"`niwaki.prune(model, x, budget)`, {more}"
    return f'`scope="{scope}"`, `reconstruct`{f", then `{recovery}`" if recovery else ""}'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="cells whose name starts so")
    parser.add_argument("--page", action="store_true", help="write the table anew; measure nothing")
    words = parser.parse_args()
    if words.page:
        write_between(PAGE, START, END, as_markdown(json.loads(words.out.read_text())))
        return
    record = json.loads(words.out.read_text()) if words.out.exists() else {"cells": {}}
    record |= {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "baseline": 93.88,
        "images": 10_000,
    }
    bench = Bench(words.data_root, words.checkpoints)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    for cell in cells():
        if cell.key in record["cells"] or not cell.key.startswith(words.only):
            continue
        record["cells"][cell.key] = found = bench.run(cell)
        print(f"{cell.key:<30} {found['accuracy']:6.2f}", flush=True)
        words.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
