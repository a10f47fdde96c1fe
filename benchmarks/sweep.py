"""One sweep run three ways: by one process, by two, and on Ray with a worker killed at work.

    python benchmarks/sweep.py --out benchmarks/records/sweep.json
    python benchmarks/sweep.py --out benchmarks/records/sweep.json --page

48 cells on the digits: two networks, trained here, × two criteria × two repairs × three budgets × two
seeds. What a cell leaves behind is compared with what one process made of it, all numbers to the last
digit, but for those that say when, how long and where: the plan, the losses and accuracies before and
after, sizes, residuals, notes and settings. On Ray, once a third of the cells are done, the first worker
that is found in the middle of a cell is stopped, looked at again, and killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from pages import as_table, write_between
from safetensors.torch import save_file

from niwaki import data, models
from niwaki.cli.sweep_cell import run_cell
from niwaki.core.records import hardware, versions
from niwaki.sweep import Board, Common, Grid, SweepFolder, Workers, run_cells
from niwaki.sweep.cell import Outcome
from niwaki.training import Feed, FeedSettings, TrainSettings, fit

START, END = "<!-- rendered by benchmarks/sweep.py -->", "<!-- end -->"
PAGE = Path(__file__).parents[1] / "docs" / "guides" / "sweep.md"
NETWORKS = ("digits-cnn", "lenet-300-100")
WAYS = {
    "one process": Workers(),
    "two processes": Workers(count=2),
    "Ray, a worker killed": Workers("ray", 2),
}
OF_THE_RUN = ("seconds", "created", "hardware", "versions")  # of a record: when, how long, where
AT_WORK = f"ray::{run_cell.__name__}"


def trained(folder: Path) -> tuple[str, ...]:
    """The networks as a sweep names them, with weights of ten epochs."""
    digits, words = data.load("digits"), []
    for name in NETWORKS:
        torch.manual_seed(0)
        model = models.build(name, classes=10, in_channels=1, image_size=8)
        feed = Feed(digits.split("train"), FeedSettings(64))
        fit(model, feed, settings=TrainSettings(epochs=10, lr=0.05), progress=False)
        path = folder / f"{name}.safetensors"
        save_file(model.state_dict(), path)
        words.append(f"{name}@{path}")
    return tuple(words)


class Killer(threading.Thread):
    """Kills the first worker that it finds in the middle of a cell, once it may."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.may, self.over = threading.Event(), threading.Event()
        self.killed: int | None = None

    def run(self) -> None:
        self.may.wait()
        while self.killed is None and not self.over.wait(0.002):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.strike(process)
                except psutil.Error:
                    continue  # it has ended
                if self.killed is not None:
                    return

    def strike(self, process: psutil.Process) -> None:
        if not is_at_work(process):
            return
        process.suspend()
        if is_at_work(process):  # stopped, so that it cannot finish in between
            process.send_signal(signal.SIGKILL)
            self.killed = process.pid
        else:
            process.resume()


def is_at_work(process: psutil.Process) -> bool:
    """Whether a cell is being run there; Ray names its workers after what they do."""
    return any(AT_WORK in word for word in process.cmdline())


def run(way: str, grid: Grid, folder: Path) -> tuple[dict[str, Outcome], dict[str, Any]]:
    """All outcomes by cell, and how it went."""
    workers, killer, done_at_kill = WAYS[way], Killer(), list[int]()
    cells, start = grid.cells(), time.perf_counter()

    def watch(board: Board) -> None:
        if 3 * len(board.ended) >= board.total and workers.engine == "ray":
            killer.may.set()
        if killer.killed is not None and not done_at_kill:
            done_at_kill.append(len(board.ended) - 1)

    killer.start()
    place = SweepFolder(folder, Common(data="digits", calibration=256)).checked()
    pairs = run_cells(cells, place, run_cell, workers=workers, watch=watch)
    killer.over.set()
    killer.may.set()

    told = {"seconds": round(time.perf_counter() - start, 1), "workers": workers.count}
    if workers.engine == "ray":
        told |= {"killed": int(killer.killed is not None), "done_when_killed": done_at_kill}
    return {cell.name: outcome for cell, outcome in pairs}, told


def lasting(outcome: Outcome) -> str:
    """What of a cell may not hang on who ran it, every number with all its digits."""
    record = {k: v for k, v in outcome.get("record", {}).items() if k not in OF_THE_RUN}
    return json.dumps({**outcome, "record": record}, sort_keys=True)


def as_markdown(record: dict[str, Any]) -> str:
    """A row a way."""
    count = record["cells"]
    heads = f"{count} cells, digits", "seconds", "cells done"
    rows = []
    for way, told in record["ways"].items():
        killed = told.get("done_when_killed")
        after = f" after {killed[0]} cells" if killed else ""
        rows.append([f"{way}{after}", f"{told['seconds']:.0f}", told["done"], told["equal"]])
    lines = [as_table([*heads, "equal to one process's, to the last digit"], rows, numbers=3)]
    cores, load = record["hardware"]["cores"], record["load"]
    lines += [
        "",
        f"Seconds on {cores} cores with a load of {load:.0f} from other work when it began.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", action="store_true", help="write the table anew; measure nothing")
    words = parser.parse_args()
    if words.page:
        write_between(PAGE, START, END, as_markdown(json.loads(words.out.read_text())))
        return
    torch.set_num_threads(1)  # as many as each of two workers has: sums depend on it
    load, ways, first = os.getloadavg()[0], {}, dict[str, str]()
    with tempfile.TemporaryDirectory() as temporary:
        grid = Grid(
            trained(Path(temporary)),
            criteria=("l1", "taylor"),
            repairs=("none", "reconstruct"),
            budgets=("0.3", "macs=0.5", "params=0.7"),
            seeds=(0, 1),
        ).checked()
        for way in WAYS:
            outcomes, told = run(way, grid, Path(temporary) / way)
            found = {name: lasting(outcome) for name, outcome in outcomes.items()}
            first = first or found
            told["done"] = sum(outcome["status"] == "done" for outcome in outcomes.values())
            told["equal"] = sum(found[name] == wanted for name, wanted in first.items())
            ways[way] = told
            print(way, told, file=sys.stderr, flush=True)
    record = {
        "cells": len(first),
        "different": len(set(first.values())),
        "ways": ways,
        "load": round(load, 1),
        "versions": {**versions(), "ray": version("ray")},
        "hardware": hardware(),
    }
    words.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
