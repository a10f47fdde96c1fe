"""In how many cells of the zoo a repair without a guard leaves a consumer with more error than
plain pruning.

    python benchmarks/zoo_residuals.py --out benchmarks/records/zoo_residuals.json

A cell is one consumer of one group of one small network of tests/zoo.py, with half of the group
kept by one criterion. Error is E|W·(x - x̂)|² on inputs that are drawn for the purpose; the weights
are random, so that few units are alike: a hard case for repairs that look at likeness, which real
    networks are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import zoo

import niwaki
from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.units import consumer_gram
from niwaki.methods.reconstruction.least_squares import Joint, residual

CRITERIA = ("l1", "l2-gm", "random", "fold")
METHODS = (
    "merge",
    "match",
    "fold",
    "merge:guard=true",
    "match:guard=true",
    "fold:guard=true",
    "moments",
    "reconstruct",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[str, Counter[str]] = {method: Counter() for method in METHODS}
    for name in zoo.MODELS:
        if name not in ("Float16", "Bfloat16"):
            count(name, counts)
    words.out.write_text(
        json.dumps({method: dict(found) for method, found in counts.items()}, indent=1) + "\n"
    )
    for method, found in counts.items():
        print(
            f"{method:<18} {found['worse']:4d} of {found['repaired']} repaired cells worse than "
            "plain pruning"
        )


def count(model: str, counts: dict[str, Counter[str]]) -> None:
    """One network: cells that were repaired, and of those the ones that are worse than with plain
    pruning.
    """
    network = zoo.build(model, torch.float64)
    graph = niwaki.trace(network, zoo.inputs(network, 1))
    calibration = zoo.calibration(network)
    free = [group.name for group in graph.groups if group.fold_obstacle is None]
    known = gather(niwaki.Evidence(graph, calibration), free, "the benchmark")
    for criterion in CRITERIA:
        scores = niwaki.score(graph, criterion)
        for name, weights in known.items():
            width = graph[name].width
            units = tuple(
                sorted(scores[name].argsort(descending=True)[: max(1, width // 2)].tolist())
            )
            plan = niwaki.Plan({name: niwaki.core.plan.Kept(width, units)})
            for method, found in counts.items():
                order = (
                    ":order=parallel" if method == "reconstruct" else ""
                )  # by the moments that it is judged by
                mixing = niwaki.compensate(
                    niwaki.Cut(graph, plan), method + order, calibration=calibration
                ).mixings.get(name)
                for weight, moments in weights.items():
                    if mixing is None:
                        continue
                    joint, gram = (
                        Joint.of_original(moments.mean, moments.covariance, units),
                        consumer_gram(graph, name, weight),
                    )
                    plain = residual(joint, niwaki.Mixing.selecting(width, units), units, gram)
                    found["repaired"] += 1
                    found["worse"] += (
                        residual(joint, mixing.at(weight), units, gram) > plain * (1 + 1e-6) + 1e-9
                    )


if __name__ == "__main__":
    main()
