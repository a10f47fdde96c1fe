"""How long trace, score, select, merge, shrink and check take, beside the paper's algorithm as
plain loops in one run.

    python benchmarks/neuron_merging.py

Prints seconds a step (median of several runs in one process), their sum against the floor that the
project set itself, and how many times longer the double loop over dropped and kept units takes for
the merging alone. Random weights: the time does not depend on their values.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import niwaki
from niwaki.graph import Graph

FLOORS = {"lenet-300-100": 0.3, "resnet56:shortcut=projection": 3.0}
RATIO, RUNS = 0.5, 5


def main() -> None:
    torch.set_num_threads(2)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, ratio {RATIO}, median of "
        f"{RUNS}"
    )
    for spec, floor in FLOORS.items():
        runs = [steps(spec) for _ in range(RUNS + 1)][1:]  # the first one warms up
        median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        ours = sum(median[name] for name in ("trace", "score", "select", "merge", "shrink"))
        print(f"\n{spec}")
        for name, seconds in median.items():
            print(f"  {name:<28}{seconds:8.4f} s")
        print(f"  {'trace to shrink':<28}{ours:8.4f} s   floor {floor} s")
        print(f"  {'loops / merge':<28}{median['merge as plain loops'] / median['merge']:8.1f} ×")


def steps(spec: str) -> dict[str, float]:
    """Seconds a step, for one fresh network."""
    model = niwaki.models.build(spec).eval()
    inputs = niwaki.models.example_inputs(model)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    graph = timed("trace", lambda: niwaki.trace(model, inputs))
    scores = timed("score", lambda: niwaki.score(graph, "l2"))
    plan = timed("select", lambda: niwaki.select(niwaki.Scores(graph, scores), RATIO).plan)
    merged = timed("merge", lambda: niwaki.compensate(niwaki.Cut(graph, plan), "merge"))
    smaller = timed("shrink", lambda: niwaki.shrink(niwaki.Cut(graph, plan, merged.mixings)))
    timed(
        "check (one forward each)",
        lambda: niwaki.check(niwaki.Cut(graph, plan, merged.mixings), smaller),
    )
    timed(
        "merge as plain loops",
        lambda: [loops(graph, name, plan[name].units) for name in merged.mixings],
    )
    return seconds


def loops(graph: Graph, name: str, units: tuple[int, ...]) -> Tensor:
    """The similarity search of the paper, one pair of rows at a time."""
    group = graph[name]
    rows = group.rows(graph.state).double()
    scaling = torch.zeros(group.width, len(units), dtype=torch.float64)
    for unit in set(range(group.width)) - set(units):
        best, match = -2.0, 0
        for position, kept in enumerate(units):
            cosine = float(rows[unit] @ rows[kept] / (rows[unit].norm() * rows[kept].norm()))
            if cosine > best:
                best, match = cosine, position
        scaling[unit, match] = rows[unit].norm() / rows[units[match]].norm()
    return scaling


if __name__ == "__main__":
    main()
