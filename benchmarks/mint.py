"""Conditional geometric mutual information beside the plain algorithm, in one run; a whole VGG-16;
how cost grows.

    python benchmarks/mint.py                 # all; --only estimate, vgg16 or growth
    python benchmarks/mint.py --out benchmarks/records/mint.json --plot docs/mint-cost.png --page
    docs/mint.md python benchmarks/mint.py --read benchmarks/records/mint.json --page docs/mint.md
      # the page again, nothing measured

The plain algorithm is the definition as one would first write it down: a Python double loop over
the rows for the distances, and scipy's minimal spanning tree. Ratios are of processor time on one
core, so that other work on the machine does not count; wall times are printed beside them. Memory
is the sum of the proportional set sizes of the process and its workers: a page that three of them
share counts once and not three times.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from pages import as_table, write_between
from scipy.sparse.csgraph import minimum_spanning_tree

import niwaki
from niwaki.core.work import Workers
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.mint._layer_dependencies import Estimation, layer_dependencies
from niwaki.methods.mint.activations import observe
from niwaki.methods.mint.mutual_information import conditional_mutual_information, dependencies

N, WIDTH, GROUPS, BATCH = 2500, 8, 8, 64
FLOOR = 500


def plain(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> float:
    """One estimate, loop by loop."""
    rows = rng.permutation(len(x))
    third = len(x) // 3
    receivers, donors = rows[: (len(x) - third) // 2], rows[(len(x) - third) // 2 : len(x) - third]
    points = []
    for row in receivers:
        best, nearest = np.inf, -1
        for other in donors:
            distance = np.linalg.norm(z[row] - z[other])
            if distance < best:
                best, nearest = distance, other
        points.append(np.concatenate([x[row], y[nearest], z[row]]))
    points += [np.concatenate([x[row], y[row], z[row]]) for row in rows[len(x) - third :]]
    distances = np.zeros((len(points), len(points)))
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            distances[i, j] = np.linalg.norm(points[i] - points[j])
    tree = minimum_spanning_tree(distances).tocoo()
    q, p = len(receivers), third
    crossing = int(((tree.row < q) != (tree.col < q)).sum())
    return max(0.0, 1 - crossing * (p + q) / (2 * p * q))


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, float]:
    """Processor and wall seconds, medians."""
    processor, wall = [], []
    for _ in range(repeats):
        start, clock = time.process_time(), time.perf_counter()
        work()
        processor.append(time.process_time() - start)
        wall.append(time.perf_counter() - clock)
    return statistics.median(processor), statistics.median(wall)


def estimate() -> dict[str, Any]:
    """One estimate of the plain algorithm, and batches of 64, on one core."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    children = [torch.randn(N, WIDTH, generator=generator) for _ in range(GROUPS)]
    parents = [torch.randn(N, WIDTH, generator=generator) for _ in range(GROUPS)]
    rest = torch.cat(parents[1:], 1)
    arrays = [part.double().numpy() for part in (children[0], parents[0], rest)]
    slow = timed(lambda: plain(*arrays, np.random.default_rng(0)))
    pair = timed(lambda: dependencies(children, parents), 3)
    many = [
        torch.randn(BATCH, N, width, generator=generator)
        for width in (WIDTH, WIDTH, WIDTH * (GROUPS - 1))
    ]
    alone = timed(lambda: conditional_mutual_information(*many), 3)
    found = {
        "plain_s": slow,
        "layer_pair_ms": [1000 * seconds / BATCH for seconds in pair],
        "independent_ms": [1000 * seconds / BATCH for seconds in alone],
        "layer_pair_times_faster": BATCH * slow[0] / pair[0],
        "independent_times_faster": BATCH * slow[0] / alone[0],
    }
    print(
        f"one estimate, N = {N}, {WIDTH} + {WIDTH} + {WIDTH * (GROUPS - 1)} columns, one core "
        "(processor time, wall time)"
    )
    print(f"  plain loops + scipy         {slow[0]:10.2f} s   {slow[1]:10.2f} s")
    for name, what in (
        ("layer_pair", "8 x 8 groups of a layer pair"),
        ("independent", "64 with nothing in common"),
    ):
        milliseconds = found[f"{name}_ms"]
        ratio = found[f"{name}_times_faster"]
        print(
            f"  {what:<28}{milliseconds[0]:9.2f} ms  {milliseconds[1]:10.2f} ms   {ratio:7.0f} x "
            f"faster (floor {FLOOR} x)"
        )
    return found


def vgg16(data_root: Path | None) -> dict[str, Any]:
    """All 14 layer pairs of VGG-16, 8 x 8 groups, 250 samples a class: 896 estimates, on two
    processes.
    """
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = niwaki.models.build("vgg16:classifier=two-layer").eval()
    graph = niwaki.trace(model, niwaki.models.example_inputs(model))
    pairs = [pair for pair in layer_pairs(graph) if pair.columns is not None]
    if data_root is None:
        images = torch.randn(2500, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(2500) % 10
        batches = [
            (images[start : start + 125], labels[start : start + 125])
            for start in range(0, 2500, 125)
        ]
        calibration = niwaki.Calibration.labelled(batches)
    else:
        split = niwaki.data.load("cifar10", data_root).split("train")
        calibration = niwaki.Calibration.labelled(lambda: split.batches(200))
    evidence = niwaki.Evidence(graph, calibration, say=lambda remark: None)
    start, clock = time.process_time(), time.perf_counter()
    observe(
        evidence,
        [site for pair in pairs for site in (pair.writes, pair.reads)],
        Estimation().sampling,
    )
    watching = time.perf_counter() - clock, time.process_time() - start
    evidence = niwaki.Evidence(graph, calibration, say=lambda remark: None)
    clock, used = time.perf_counter(), _processor()
    with MemoryWatch() as memory:
        found = layer_dependencies(evidence, pairs, Estimation(GROUPS, workers=Workers(count=2)))
    wall, processor = time.perf_counter() - clock, _processor() - used
    own, child = (
        resource.getrusage(who).ru_maxrss / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    numbers = {
        "estimates": sum(item.values.numel() for item in found),
        "wall_s": wall,
        "processor_s": processor,
        "two_free_cores_s": processor / 2,
        "watching_wall_s": watching[0],
        "peak_gb": memory.peak / 1e9,
        "largest_resident_gb": [own, child],
    }
    print(
        f"\nVGG-16, {len(pairs)} layer pairs, {numbers['estimates']} estimates on two processes "
        "(floor 60 s, 2 GB)"
    )
    print(
        f"  wall {wall:.1f} s; processor time of all {processor:.1f} s, so {processor / 2:.1f} s "
        "on two free cores"
    )
    print(f"  of that, running the network on 2,500 images takes {watching[0]:.1f} s of wall time")
    print(f"  peak memory of all together {memory.peak / 1e9:.2f} GB (proportional set sizes)")
    print(
        f"  resident, shared pages counted in each: main {own:.2f} GB, largest worker {child:.2f} "
        "GB"
    )
    return numbers


class MemoryWatch:
    """The most memory that this process and those it started took together, looked at ten times a
    second.

    Attributes:
        peak: bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        this = psutil.Process()
        while not self._over.wait(0.1):
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has ended
            self.peak = max(self.peak, total)


def _processor() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def growth() -> dict[str, Any]:
    """Processor milliseconds an estimate by samples, groups and width; each from the same
    middle.
    """
    torch.set_num_threads(1)
    _milliseconds(300, 8, 64)  # the first call is slow
    series: dict[str, list[tuple[int, float]]] = {"samples": [], "groups": [], "width": []}
    for samples in (300, 600, 1250, 2500, 5000):
        series["samples"].append((samples, _milliseconds(samples, 8, 64)))
    for groups in (2, 4, 8, 16, 32):
        series["groups"].append((groups, _milliseconds(1250, groups, 64)))
    for width in (32, 64, 128, 256, 512, 1024):
        series["width"].append((width, _milliseconds(1250, 8, width)))
    print(
        "\nprocessor milliseconds an estimate (else 1,250 samples, 8 x 8 groups, 64 channels a "
        "layer)"
    )
    for name, points in series.items():
        print(f"  {name:<9}" + "  ".join(f"{size}: {value:.2f}" for size, value in points))
    return series


def _milliseconds(samples: int, groups: int, width: int) -> float:
    generator = torch.Generator().manual_seed(0)
    children, parents = (
        list(torch.randn(samples, width, generator=generator).tensor_split(groups, 1))
        for _ in range(2)
    )
    return 1000 * timed(lambda: dependencies(children, parents))[0] / groups**2


def draw(series: dict[str, Any], path: Path) -> None:
    """The growth as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.9), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(series)), series.items(), strict=True):
        axes.plot(*zip(*points, strict=True), marker="o", color="#2f6b4f", lw=1.5)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(
            [size for size, _ in points], [str(size) for size, _ in points], fontsize=7, minor=False
        )
        axes.set_xlabel(
            {"samples": "samples", "groups": "groups a layer", "width": "channels a layer"}[name]
        )
        axes.set_ylabel("ms an estimate, one core")
        axes.grid(alpha=0.3)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.savefig(path, dpi=160)


START, END = "<!-- from benchmarks/records/mint.json -->", "<!-- end -->"


def as_markdown(found: dict[str, Any]) -> str:
    """The numbers of a record as docs/mint.md shows them."""
    one, network = found["estimate"], found["vgg16"]
    times = {
        name: f"{one[f'{name}_ms'][0]:.1f} ms, {one[f'{name}_times_faster']:.0f} × less"
        for name in ("layer_pair", "independent")
    }
    rows = {
        "one estimate as defined: a double loop, scipy's tree": (f"{one['plain_s'][0]:.2f} s", ""),
        "one of the 8 × 8 estimates of a layer pair": (times["layer_pair"], f"{FLOOR} × less"),
        "one of 64 that have nothing in common": (times["independent"], ""),
        f"VGG-16, {network['estimates']} estimates on two processes, wall time": (
            f"{network['wall_s']:.1f} s",
            "60 s",
        ),
        "of that, running the network on 2,500 images": (f"{network['watching_wall_s']:.1f} s", ""),
        "memory of these processes together, at most": (f"{network['peak_gb']:.2f} GB", "2 GB"),
    }
    where = f"{found['hardware']['cpu']}, {found['hardware']['cores']} cores"
    return as_table(
        [where, "measured", "floor"], [(what, *numbers) for what, numbers in rows.items()]
    )


def write_page(found: dict[str, Any], page: Path) -> None:
    """Put the numbers between the two marks of a page."""
    write_between(page, START, END, as_markdown(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("estimate", "vgg16", "growth"))
    parser.add_argument(
        "--data-root", type=Path, help="with CIFAR-10; without it, noise of the same size"
    )
    parser.add_argument("--out", type=Path, help="file for the numbers as JSON")
    parser.add_argument("--plot", type=Path, help="file for the picture of the growth")
    parser.add_argument(
        "--page", type=Path, help="a page whose marked part is to show these numbers (docs/mint.md)"
    )
    parser.add_argument(
        "--read", type=Path, help="an earlier --out: measure nothing, take its numbers"
    )
    words = parser.parse_args()
    if words.page and words.only:
        parser.error("--page shows all parts: leave --only out")
    found = (
        measured(words.only, words.data_root)
        if words.read is None
        else json.loads(words.read.read_text(encoding="utf-8"))
    )
    if words.plot and "growth" in found:
        draw(found["growth"], words.plot)
    if words.out:
        words.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if words.page:
        write_page(found, words.page)


def measured(only: str | None, data_root: Path | None) -> dict[str, Any]:
    """All of it, or one part."""
    found: dict[str, Any] = {
        "versions": niwaki.core.records.versions(),
        "hardware": niwaki.core.records.hardware(),
    }
    if only in (None, "estimate"):
        found["estimate"] = estimate()
    if only in (None, "vgg16"):
        found["vgg16"] = vgg16(data_root)
    if only in (None, "growth"):
        found["growth"] = growth()
    return found


if __name__ == "__main__":
    main()
