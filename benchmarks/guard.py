"""Is a repair ever worse than none? Default repair against plain pruning, on inputs that neither saw.

    python benchmarks/guard.py --data-root data --checkpoints checkpoints --out
    benchmarks/records/guard.json

Eight networks with trained weights, six of which are trained here in seconds: a digits classifier, a
classifier of tones, a restorer of noisy images in [0, 1] without normalisation, a detector-like head,
a transformer over token embeddings and a recurrent network; and the checkpoints of LeNet-300-100 and
ResNet-56. For budgets of 0.2, 0.3 and 0.5 of the channels, with 256 calibration inputs and with none
(8 example inputs), the outputs of the pruned network are held against the original's on 256 other
inputs: the squared difference as a share of how the original's outputs vary. Cells are written one by
one, and those that the file holds are not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from guard_networks import NETWORKS, Network
from pages import as_table, write_between

import niwaki

START, END = "<!-- rendered by benchmarks/guard.py -->", "<!-- end -->"
PAGE = Path(__file__).parents[1] / "docs" / "compensation.md"
BUDGETS = (0.2, 0.3, 0.5)
DATA = ("256 inputs", "no inputs")
SEEN, HELD, EXAMPLES = 256, 256, 8


def cells(network: Network, inputs: torch.Tensor) -> Iterator[tuple[str, dict[str, Any]]]:
    """Budget and data → errors of plain and repaired."""
    seen, held = inputs[:SEEN], inputs[SEEN : SEEN + HELD]
    with torch.no_grad():
        wanted = network(held)
    for budget in BUDGETS:
        for name, calibration in zip(DATA, ([seen[:128], seen[128:]], None), strict=True):
            found: dict[str, Any] = {}
            for repair in ("none", "auto"):
                result = niwaki.prune(
                    network,
                    inputs[:EXAMPLES],
                    budget=budget,
                    compensation=repair,
                    calibration=calibration,
                )
                with torch.no_grad():
                    off = (result.model(held) - wanted).double().square().sum()
                spread = (wanted - wanted.mean(0)).double().square().sum()
                found[repair] = round(float(off / spread), 6)
            found["worse"] = found["auto"] > found["none"]
            yield f"{budget:g} {name}", found


def as_markdown(record: dict[str, Any]) -> str:
    """A row a network and kind of data: plain → repaired."""
    keys = [(budget, data) for data in DATA for budget in BUDGETS]
    names = list(dict.fromkeys(key.split(" ")[0] for key in record["cells"]))
    heads = [f"{budget:.0%}, {data}" for budget, data in keys]
    rows = []
    for name in names:
        cells = [record["cells"].get(f"{name} {budget:g} {data}") for budget, data in keys]
        shown = [f"{c['none']:.3f} → {c['auto']:.3f}" if c else "–" for c in cells]
        rows.append([name, *shown])
    return as_table(["network", *heads], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="networks whose name starts so")
    parser.add_argument("--page", action="store_true", help="write the table anew; measure nothing")
    words = parser.parse_args()
    if words.page:
        write_between(PAGE, START, END, as_markdown(json.loads(words.out.read_text())))
        return
    record = json.loads(words.out.read_text()) if words.out.exists() else {"cells": {}}
    record |= {"torch": torch.__version__, "machine": platform.machine(), "seed": 0}
    make: Callable[[Path, Path], tuple[Network, torch.Tensor]]
    for name, make in NETWORKS.items():
        done = [key for key in record["cells"] if key.startswith(f"{name} ")]
        if len(done) == 2 * len(BUDGETS) or not name.startswith(words.only):
            continue
        torch.manual_seed(0)
        network, inputs = make(words.data_root, words.checkpoints)
        for key, found in cells(network.eval(), inputs):
            record["cells"][f"{name} {key}"] = found
            print(f"{name:<14} {key:<16} {found}", flush=True)
            words.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
