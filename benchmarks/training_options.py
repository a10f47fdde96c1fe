"""What each option of the training loop is worth in images a second of one core: all in turns, in one run.

    python benchmarks/training_options.py --model resnet20 --turns 5 --out benchmarks/records/training_options.json
    python benchmarks/training_options.py --read benchmarks/records/training_options.json --page docs/training.md

Images are made up, as none of this depends on what they show. A turn runs every option once for a few dozen batches, on one thread,
and what is counted is the time that the process was given, not the clock's: so a machine with other work gives nearly what a quiet one
does. Reported are medians over the turns of images a second, and of the ratio to the plain loop in the same turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from pages import as_table
from torch import nn

from niwaki import models
from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic
from niwaki.data import HeldSplit, Normalization
from niwaki.measure import Evaluation
from niwaki.training import Augment, Feed, FeedSettings, TrainSettings, fit

START, END = "<!-- from benchmarks/records/training_options.json -->", "<!-- end -->"
PLAIN = "plain: NCHW, float32, SGD"
# name → settings of the loop, settings of the feed; the plain ones are what the others are held against
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    PLAIN: ({"channels_last": False}, {}),
    "channels-last, the default on a processor": ({}, {}),
    "torch.compile too": ({"compile": True}, {"drop_last": True}),
    "bf16 too": ({"precision": "bf16"}, {}),
    "images of 24 pixels too": ({}, {"sizes": ((1, 24),)}),
    "alternating flips too": ({}, {"augment": Augment(border="zero", flip="alternate")}),
    "a mean of the weights too (ema)": ({"ema": 0.99}, {}),
    "RMSprop instead of SGD": ({"optimizer": "rmsprop", "lr": 0.001}, {}),
}


def made_up(count: int) -> HeldSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return HeldSplit(images, labels, Normalization((0.5,) * 3, (0.25,) * 3))


def images_per_second(name: str, model: str, batch: int, batches: int) -> float:
    """Of the second epoch, in seconds of the processor; the first one warms up, and compiles."""
    how, feed = OPTIONS[name]
    torch.manual_seed(0)
    settings = TrainSettings(2, **{"lr": 0.01, "weight_decay": 5e-4, **how})
    fed = FeedSettings(batch, **{"augment": Augment(border="zero"), **feed})
    split, stamps = made_up(batch * batches), []

    def stamp(network: nn.Module) -> Evaluation:
        stamps.append(time.process_time())
        return Evaluation(0.0, 0.0, 1, 0)

    fit(models.build(model), Feed(split, fed), settings=settings, validate=stamp, progress=False)
    return len(split) / (stamps[1] - stamps[0])


def measured(given: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)  # seconds of several threads would count for more than one
    names = [name for name in OPTIONS if not (given.no_compile and "compile" in name)]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(given.turns):
        for name in names:
            speeds[name].append(images_per_second(name, given.model, given.batch, given.batches))
            print(f"turn {turn + 1}: {name}: {speeds[name][-1]:,.0f} images/s", flush=True)
    return {
        "model": given.model,
        "batch": given.batch,
        "batches": given.batches,
        "images_per_second": {name: [round(x, 1) for x in own] for name, own in speeds.items()},
        "versions": versions(),
        "hardware": hardware(),
    }


def as_markdown(record: dict[str, Any]) -> str:
    plain = record["images_per_second"][PLAIN]
    where = f"{record['model']}, batch {record['batch']}, one core of {record['hardware']['cpu']}"
    rows = []
    for name, speeds in record["images_per_second"].items():
        ratio = statistics.median(own / base for own, base in zip(speeds, plain, strict=True))
        rows.append([name, f"{statistics.median(speeds):,.0f}", f"{ratio:.2f} ×"])
    return as_table([where, "images/s", "to plain"], rows)


def write_page(record: dict[str, Any], page: Path) -> None:
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n{as_markdown(record)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=24, help="an epoch; two are run")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--read", type=Path, help="a record, in the place of measuring")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    record = json.loads(given.read.read_text()) if given.read else measured(given)
    if given.out:
        write_text_atomic(given.out, json.dumps(record, indent=2) + "\n")
    if given.page:
        write_page(record, given.page)
    print(as_markdown(record))


if __name__ == "__main__":
    main()
