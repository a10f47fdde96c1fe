"""How the time of every stage grows with the depth and the width of a network.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --out benchmarks/records/growth.json
    python benchmarks/growth.py --table benchmarks/records/growth.json

A family is built in several sizes, and every stage of a pruning is timed (CPU seconds of one
thread, the least of three). The exponent is the slope of a line through log time over log size,
fitted to the larger half of the sizes, where what a call costs at least no longer counts: 1 is
proportional, 2 is quadratic. A doubled width squares a matrix, so that 2 is proportional there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import recorded
import torch
import torch.nn.functional as F
from pages import as_table
from torch import Tensor, nn

import niwaki

Build = Callable[[int], tuple[nn.Module, Tensor]]
LEAST = 0.02  # seconds below which a stage's growth tells nothing


class Residual(nn.Module):
    """Blocks of two convolutions around a stream."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
            )
            for _ in range(layers // 2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads what all before it put out, in blocks of 16."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers, self.joins = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers // 16):
            self.layers += [nn.Conv2d(8 + 4 * place, 4, 1) for place in range(16)]
            self.joins.append(nn.Conv2d(8 + 4 * 16, 8, 1))
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for place, layer in enumerate(self.layers):
            x = torch.cat([x, torch.relu(layer(x))], 1)
            if place % 16 == 15:
                x = self.joins[place // 16](x)
        return self.head(x.mean((2, 3)))


def plain(layers: int) -> tuple[nn.Module, Tensor]:
    body = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(layers)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), *body, nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    return net, torch.randn(2, 3, 8, 8)


def residual(layers: int) -> tuple[nn.Module, Tensor]:
    return Residual(layers), torch.randn(2, 3, 8, 8)


def dense(layers: int) -> tuple[nn.Module, Tensor]:
    return Dense(layers), torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    """Attention of four heads and two linear layers, each behind a LayerNorm and around a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 16)
        self.before, self.between = nn.LayerNorm(16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (
            part(y).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        seen = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.second(F.gelu(self.first(self.between(x))))


def transformer(layers: int) -> tuple[nn.Module, Tensor]:
    blocks = [Block() for _ in range(layers)]
    return nn.Sequential(nn.Linear(4, 16), *blocks, nn.Linear(16, 3)), torch.randn(2, 5, 4)


def mlp(width: int) -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    return net, torch.randn(2, 64)


FAMILIES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "plain, layers": (plain, (125, 250, 500, 1000)),
    "residual, layers": (residual, (124, 250, 500, 1000)),
    "dense, layers": (dense, (64, 128, 256, 512)),
    "transformer, layers": (transformer, (12, 24, 48, 96)),
    "mlp, width": (mlp, (1024, 2048, 4096, 8192)),
}


def stages(model: nn.Module, x: Tensor, compensation: str) -> dict[str, float]:
    """CPU seconds of every stage of one pruning."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = step()
        seconds[name] = time.process_time() - start
        return result

    graph = timed("trace", lambda: niwaki.trace(model, x, probes=False))
    graph = timed("trace and probes", lambda: niwaki.trace(model, x))
    scores = timed("score", lambda: niwaki.score(graph, "l2"))
    chosen = timed("select", lambda: niwaki.select(scores, 0.5))
    cut = timed("repair", lambda: niwaki.compensate(chosen, compensation))
    smaller = timed("shrink", lambda: niwaki.shrink(cut))
    timed("check", lambda: niwaki.check(cut, smaller))
    return seconds


def exponent(sizes: list[int], seconds: list[float]) -> float | None:
    """The slope of log time over log size, by least squares over the larger half."""
    pairs = [(math.log(a), math.log(b)) for a, b in zip(sizes, seconds, strict=True)]
    pairs = pairs[len(pairs) // 2 - 1 :]
    if seconds[-1] < LEAST:
        return None
    x, y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    slope = sum((a - x) * (b - y) for a, b in pairs) / sum((a - x) ** 2 for a, _ in pairs)
    return round(slope, 2)


def family(name: str, repeats: int, compensation: str) -> dict[str, Any]:
    """Times by stage and size, and the exponents."""
    build, sizes = FAMILIES[name]
    found: dict[str, list[float]] = {}
    for size in sizes:
        torch.manual_seed(0)
        model, x = build(size)
        runs = [stages(model.eval(), x, compensation) for _ in range(repeats)]
        for stage in runs[0]:
            found.setdefault(stage, []).append(round(min(run[stage] for run in runs), 4))
        print(name, size, {stage: times[-1] for stage, times in found.items()}, flush=True)
    slopes = {stage: exponent(list(sizes), times) for stage, times in found.items()}
    return {"sizes": sizes, "seconds": found, "exponents": slopes}


def table(record: dict[str, Any]) -> str:
    """Exponents by family and stage; a dash where the stage takes no time to speak of."""
    names = list(next(iter(record["families"].values()))["exponents"])
    rows = []
    for name, one in record["families"].items():
        cells = ["–" if one["exponents"][key] is None else one["exponents"][key] for key in names]
        rows.append([name, f"{one['sizes'][-1]:,}", *cells])
    return as_table(["", "largest", *names], rows, numbers=1 + len(names))


def main() -> None:
    parser = recorded.options(__doc__)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--compensation", default="auto")
    words = recorded.asked(parser, table)
    if words is None:
        return
    families = {name: family(name, words.repeats, words.compensation) for name in words.families}
    record = {"families": families, "repeats": words.repeats, "compensation": words.compensation}
    print(table(record))
    recorded.write(record, words.out)


if __name__ == "__main__":
    main()
