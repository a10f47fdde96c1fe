"""How fast pruned networks are: a budget of latency met, and speed-up beside the ratio of
multiply-adds, in one run.

    python -m pip install --no-deps -r requirements-bench.txt
    OMP_WAIT_POLICY=passive python benchmarks/latency.py --threads 2 --batch 8 --side 224 --out
    benchmarks/latency.json python benchmarks/latency.py --table benchmarks/latency.json    # the
    table of docs/guides/budgets.md

For every network the original, niwaki's at latency=0.5, niwaki's at half the channels with counts
rounded to 1 and to 8, and torch-pruning's at half the channels without and with round_to=8 are
timed in turns, in one interleaved run. Weights are random; sizes and times do not depend on them,
but which units go does not matter here.
"""

import argparse
import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision_cpu  # noqa: F401  # before timm, which imports torchvision
from pages import as_table
from torch import nn

import niwaki
from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic
from niwaki.measure import cpu_threads, measure_latency

NETWORKS = ("resnet18", "mobilenetv2_100", "efficientnet_b0", "resnet50", "convnext_tiny")
BUDGETED = ("resnet18", "mobilenetv2_100")


def build(name: str) -> nn.Module:
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=1000).eval()
    return model


def peer(model: nn.Module, x: torch.Tensor, round_to: int | None) -> nn.Module:
    """torch-pruning at half the channels; its ratio counts both ends of a layer, as ours."""
    import torch_pruning as tp

    smaller = copy.deepcopy(model)
    head = smaller.get_classifier()
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        smaller,
        x,
        importance=importance,
        pruning_ratio=0.5,
        round_to=round_to,
        ignored_layers=[head],
        global_pruning=False,
    )
    pruner.step()
    return smaller.eval()


def variants(
    name: str, model: nn.Module, x: torch.Tensor, settings: argparse.Namespace
) -> dict[str, nn.Module]:
    """The pruned networks of one row of the table, by name."""
    timing = f"batch={settings.batch},threads={settings.threads}"
    makers: dict[str, Callable[[], nn.Module]] = {
        "niwaki channels=0.5": lambda: (
            niwaki.prune(model, x, budget=0.5, compensation="none").model
        ),
        "niwaki channels=0.5, multiple 8": lambda: (
            niwaki.prune(model, x, budget=0.5, multiple=8, compensation="none").model
        ),
        "torch-pruning 0.5": lambda: peer(model, x, None),
        "torch-pruning 0.5, round_to 8": lambda: peer(model, x, 8),
    }
    if name in BUDGETED:

        def budgeted() -> nn.Module:
            return niwaki.prune(
                model, x, budget=f"latency=0.5,{timing}", compensation="none", scope="local"
            ).model

        makers = {"niwaki latency=0.5": budgeted, **makers}
    made = {}
    for label, make in makers.items():
        try:
            made[label] = make()
        except Exception as error:  # a peer may fail; the table says so
            print(f"{name}: {label}: {type(error).__name__}: {error}", flush=True)
    return made


def measure(name: str, settings: argparse.Namespace) -> list[dict[str, Any]]:
    """The original and all its variants, timed in turns: one round times each once."""
    model, x = build(name), torch.randn(settings.batch, 3, settings.side, settings.side)
    made = {"original": model, **variants(name, model, x[:2], settings)}
    with cpu_threads(settings.threads):
        latencies = measure_latency(
            list(made.values()), x, repeats=settings.rounds, seconds=settings.seconds
        )
    whole = {"ms": latencies[0].median_ms, "macs": niwaki.count_macs(model, x)}
    rows = []
    for (label, smaller), latency in zip(made.items(), latencies, strict=True):
        time, macs = latency.median_ms / whole["ms"], niwaki.count_macs(smaller, x) / whole["macs"]
        sizes = {"macs": macs, "params": niwaki.count_params(smaller)}
        times = {
            "median_ms": latency.median_ms,
            "spread_ms": latency.spread_ms,
            "rounds": latency.runs,
            "time": time,
        }
        rows.append({"network": name, "variant": label, **times, **sizes})
        said = (
            f"{latency.median_ms:8.1f} ms (+-{latency.spread_ms / 2:.1f})  {1 / time:5.2f}x "
            f"faster  {1 / macs:5.2f}x fewer MACs"
        )
        print(f"{name:<18}{label:<34}{said}", flush=True)
    return rows


def table(record: Mapping[str, Any]) -> str:
    """A record's rows in Markdown."""
    rows = []
    for row in record["rows"]:
        cells = (
            f"{row['median_ms']:.0f}",
            f"{row['spread_ms'] / 2:.0f}",
            f"{1 / row['time']:.2f}",
            f"{1 / row['macs']:.2f}",
        )
        rows.append([row["network"], row["variant"].replace("original", "–"), *cells])
    heads = ["network", "pruned by", "ms", "±", "times faster", "times fewer MACs"]
    return as_table(heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of each network's interleaved run"
    )
    parser.add_argument("--rounds", type=int, default=15, help="at least so many rounds")
    parser.add_argument("--only", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print this record as a table, and time nothing")
    settings = parser.parse_args()
    if settings.table is not None:
        print(table(json.loads(settings.table.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(settings.threads)
    load = os.getloadavg()[0]
    rows = [row for name in settings.only for row in measure(name, settings)]
    load = max(load, os.getloadavg()[0])
    record = {
        "threads": settings.threads,
        "batch": settings.batch,
        "side": settings.side,
        "load_average": load,
    }
    if settings.out is not None:
        text = json.dumps(
            {**record, "versions": versions(), "hardware": hardware(), "rows": rows}, indent=2
        )
        write_text_atomic(settings.out, text + "\n")


if __name__ == "__main__":
    main()
