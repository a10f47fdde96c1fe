"""How long a pruning takes, beside torch-pruning, in one run: 30 networks that both tools prune.

    python -m pip install --no-deps -r requirements-bench.txt
    OMP_NUM_THREADS=1 python benchmarks/speed.py --out benchmarks/records/speed.json
    python benchmarks/speed.py --table benchmarks/records/speed.json

Every network is built once, with random weights, on one image of 224 × 224 (299 for Inception).
Both tools take turns, several times, and the median of the CPU seconds of one thread counts, as the
clock on the wall counts other people's work too. torch-pruning removes half of the channels by the
norm of groups (`BasePruner`, `GroupMagnitudeImportance`), on a copy, with the copy in its time: so
does niwaki, by `l2`.

* cut: trace without probes, score, select, shrink;
* checked: the same with the probes and the check, which torch-pruning has not;
* whole: `niwaki.prune(model, x)` with the default repair and its guard.
"""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import recorded
import torch
import torchvision_cpu  # noqa: F401  # before timm, which imports torchvision
from pages import as_table
from torch import nn

import niwaki

START, END = "<!-- from benchmarks/records/speed.json -->", "<!-- end -->"
NETWORKS = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "seresnet50",
    "resnetv2_50",
    "vgg11",
    "vgg16",
    "vgg19_bn",
    "densenet121",
    "densenet169",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "efficientnet_lite0",
    "mnasnet_100",
    "convnext_tiny",
    "convnext_small",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "deit_small_patch16_224",
    "regnetx_004",
    "regnety_004",
    "darknet53",
    "cspresnet50",
    "dla34",
    "inception_v3",
    "hrnet_w18_small",
    "repvgg_a0",
    "ghostnet_100",
]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=1000).eval()
    side = 299 if name == "inception_v3" else 224
    return model, torch.randn(1, 3, side, side)


def peer(model: nn.Module, x: torch.Tensor) -> None:
    """torch-pruning, as its own examples call it."""
    import torch_pruning as tp

    smaller = copy.deepcopy(model)
    heads: dict[nn.Module, int] = {
        part.qkv: part.num_heads
        for part in smaller.modules()
        if hasattr(part, "qkv") and hasattr(part, "num_heads")
    }
    pruner = tp.pruner.BasePruner(
        smaller,
        x,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[smaller.get_classifier()],
        num_heads=heads,
        prune_head_dims=True,
    )
    pruner.step()
    for part in smaller.modules():
        if part in heads:
            part.num_heads = heads[part]
    assert niwaki.count_params(smaller) < niwaki.count_params(model)


def cut(model: nn.Module, x: torch.Tensor, probes: bool = False) -> tuple[Any, nn.Module]:
    graph = niwaki.trace(model, x, probes=probes)
    chosen = niwaki.select(niwaki.score(graph, "l2"), 0.5)
    return chosen, niwaki.shrink(chosen)


def checked(model: nn.Module, x: torch.Tensor) -> None:
    niwaki.check(*cut(model, x, probes=True))


def whole(model: nn.Module, x: torch.Tensor) -> None:
    niwaki.prune(model, x)


WAYS: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
    "torch-pruning": peer,
    "cut": cut,
    "checked": checked,
    "whole": whole,
}


def seconds(
    model: nn.Module, x: torch.Tensor, ways: list[str], repeats: int
) -> dict[str, list[float]]:
    """CPU seconds of every way, taken in turns; the first turn, which imports, does not count."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way in ways:
            gc.collect()
            start = time.process_time()
            WAYS[way](model, x)
            if turn:
                taken[way].append(time.process_time() - start)
    return taken


def row(name: str, ways: list[str], repeats: int) -> dict[str, Any]:
    """The medians of one network; what either tool raised, in its place."""
    model, x = build(name)
    try:
        found = seconds(model, x, ways, repeats)
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"[:200]}
    return {way: round(statistics.median(times), 4) for way, times in found.items()}


def as_markdown(record: dict[str, Any]) -> str:
    """A line a network, and the medians of the ratios."""
    networks = {name: one for name, one in record["networks"].items() if "refused" not in one}
    rows: list[list[object]] = []
    ratios: dict[str, list[float]] = {way: [] for way in WAYS if way != "torch-pruning"}
    for name, one in networks.items():
        theirs = one["torch-pruning"]
        cells = []
        for way, kept in ratios.items():
            kept.append(one[way] / theirs)
            cells.append(f"{one[way]:.2f} ({one[way] / theirs:.2f}×)")
        rows.append([name, f"{theirs:.2f}", *cells])
    medians = [f"{statistics.median(kept):.2f}×" for kept in ratios.values()]
    rows.append([f"median of {len(networks)}", "", *medians])
    return as_table(["network", "torch-pruning, s", "cut", "checked", "whole"], rows, numbers=4)


def main() -> None:
    parser = recorded.options(__doc__)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    words = recorded.asked(parser, as_markdown)
    if words is None:
        return
    rows: dict[str, Any] = {}
    for name in words.networks:
        rows[name] = row(name, words.ways, words.repeats)
        print(name, rows[name], flush=True)
        recorded.write({"networks": rows, "repeats": words.repeats}, words.out)


if __name__ == "__main__":
    main()
