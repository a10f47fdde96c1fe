"""What repair without data costs beside plain pruning: time and peak memory, as ratios in one run.

    python benchmarks/repair_cost.py --out benchmarks/records/repair_cost.json

For each network of timm, the whole way of `niwaki.prune` (trace, score, cut, check) is gone in a
process of its own, once with compensation="none" and once with the default, in turns; the ratio of
the medians and of the largest resident memories is what counts. Weights are random: the cost of a
repair does not hang on them. The aim: at most 3 times the time, 1.5 times the memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torchvision_cpu  # noqa: F401  # must come before timm, which imports torchvision

import niwaki

NETWORKS = ("resnet50", "vit_small_patch16_224", "mobilenetv2_100")
REPAIRS = ("none", "auto")
SLOWER, LARGER = 3.0, 1.5


def once(name: str, repair: str) -> dict[str, float]:
    """Seconds and largest resident memory (MiB) of one pruning, in this process."""
    import timm  # type: ignore[import-not-found,import-untyped,unused-ignore]  # benchmarks only

    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    example = torch.randn(2, 3, 224, 224)

    start = time.perf_counter()
    niwaki.prune(model, example, budget=0.5, compensation=repair)
    seconds = time.perf_counter() - start

    return {
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Medians of both repairs, and what the default costs as a multiple of plain pruning."""
    runs: dict[str, list[dict[str, float]]] = {repair: [] for repair in REPAIRS}
    for _ in range(rounds):
        for repair in REPAIRS:
            words = [sys.executable, __file__, "--one", name, repair]
            said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            runs[repair].append(json.loads(said.splitlines()[-1]))
    found: dict[str, Any] = {
        repair: {key: round(statistics.median(run[key] for run in each), 2) for key in each[0]}
        for repair, each in runs.items()
    }
    plain, repaired = found["none"], found["auto"]
    found["slower"] = round(repaired["seconds"] / plain["seconds"], 2)
    found["larger"] = round(repaired["memory"] / plain["memory"], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "REPAIR"), help="one run, as JSON")
    words = parser.parse_args()
    if words.one:
        print(json.dumps(once(*words.one)))
        return
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "aims": {"slower": SLOWER, "larger": LARGER},
        "networks": {},
    }
    for name in words.networks:
        record["networks"][name] = found = measured(name, words.rounds)
        print(
            f"{name:<24} {found['none']['seconds']:.1f} s plain, {found['auto']['seconds']:.1f} s "
            f"repaired: {found['slower']:.2f} x time, {found['larger']:.2f} x memory",
            flush=True,
        )
        if words.out is not None:
            words.out.parent.mkdir(parents=True, exist_ok=True)
            words.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
