"""Stems, heads, and whole random networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.running.inputs import Inputs
from random_networks import attention, images, sequences
from random_networks.draw import Draw, Maker, shaken


class Network(nn.Module):
    """A stem, parts, and a head; a second head in training alone; parameters that nothing reads."""

    steps: int

    def __init__(self, stem: nn.Module, parts: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.parts, self.head = stem, nn.ModuleList(parts), head
        self.aside: nn.Module | None = None
        self.place = 0

    def forward(self, x: Tensor) -> Any:
        x, seen = self.stem(x), None
        for number, part in enumerate(self.parts):
            x = part(x)
            seen = x if number == self.place else seen
        if self.training and self.aside is not None and seen is not None:
            return self.head(x), self.aside(seen)
        return self.head(x)


class Mean(nn.Module):
    """The mean over all but batch and channels, which is axis `axis`, and a last layer."""

    def __init__(self, width: int, axis: int, norm: bool, out: int) -> None:
        super().__init__()
        self.axis, self.last = axis, nn.Linear(width, out)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(1, x.ndim) if axis != self.axis % x.ndim]
        out: Tensor = self.last(self.norm(x.mean(axes)))
        return out


class Marked(nn.Module):
    """Scores of which some are set to a number that means "none"."""

    def __init__(self, width: int, out: int, mark: float) -> None:
        super().__init__()
        self.last, self.mark = nn.Linear(width, out), mark

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.last(x)
        none = torch.arange(scores.shape[-1], device=x.device) % 3 == 2
        return {"scores": scores.masked_fill(none, self.mark), "first": scores[:, 0]}


class First(nn.Module):
    """The first step alone, or the last."""

    def __init__(self, width: int, out: int, place: int) -> None:
        super().__init__()
        self.last, self.place = nn.Linear(width, out), place

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x[:, self.place])
        return out


class Flat(nn.Module):
    """Pooled to a few places, flattened into a last layer, as one of several people write it."""

    def __init__(self, width: int, side: int, out: int, how: str) -> None:
        super().__init__()
        self.pool, self.how, self.width = nn.AdaptiveAvgPool2d(side), how, width
        self.last = nn.Linear(width * side * side, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        if self.how == "last":
            x = x.permute(0, 2, 3, 1)
        if self.how == "view":
            y: Tensor = self.last(x.view(len(x), -1))
            return y
        out: Tensor = self.last(x.flatten(1))
        return out


class ToOne(nn.Module):
    """A convolution to one channel, flattened: its places are read by a linear layer."""

    def __init__(self, width: int, side: int, out: int) -> None:
        super().__init__()
        self.one, self.pool = nn.Conv2d(width, 1, 1), nn.AdaptiveMaxPool2d(side)
        self.last = nn.Linear(side * side, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.pool(self.one(x)).flatten(1))
        return out


@dataclass
class Drawn:
    """A random network.

    Attributes:
        parts: what it is made of, in words.
        by_space: whether it is on images.
    """

    model: nn.Module
    inputs: Inputs
    parts: list[str]
    by_space: bool
    tokens: int = 0

    def others(self, seed: int) -> Iterator[tuple[str, Any]]:
        """Fresh inputs: other values, another batch, longer, shorter, and much larger ones."""
        assert isinstance(self.inputs, Tensor)
        shape, generator = self.inputs.shape, torch.Generator().manual_seed(seed)
        lengths = [shape[2 if self.by_space else 1]]
        lengths += [lengths[0] + 3, max(3, lengths[0] - 2)]
        for length in lengths:
            for batch in (1, 3):
                if self.by_space:
                    size = (batch, shape[1], length, length)
                else:
                    size = (batch, length, *shape[2:])
                words = f"{batch} of length {length}"
                if self.tokens:
                    yield words, torch.randint(0, self.tokens, size, generator=generator)
                    continue
                values = torch.randn(size, generator=generator).to(self.inputs.dtype)
                yield words, values
                yield f"{words}, larger", -5 * values


def drawn(seed: int) -> Drawn:
    """The random network of a seed."""
    torch.manual_seed(seed)
    draw = Draw(seed)
    network = _image_network(draw) if draw.yes() else _sequence_network(draw)
    model = shaken(network.model, seed).eval()
    if draw.yes(0.8):
        network.model = model.double()
        if not network.tokens:
            assert isinstance(network.inputs, Tensor)
            network.inputs = network.inputs.double()
    return network


def _parts(
    draw: Draw, makers: dict[str, Maker], width: int
) -> tuple[list[nn.Module], list[str], list[int]]:
    parts, words, widths = [], [], []
    for _ in range(draw.number(1, 4)):
        name = draw.of(*makers)
        part, width = makers[name](draw, width)
        parts.append(part)
        words.append(name)
        widths.append(width)
    return parts, words, widths


def _sequence_network(draw: Draw) -> Drawn:
    length, width, out = draw.size(), draw.size(), draw.of(3, 5, 8)
    tokens = draw.of(0, 0, 11, 12)
    given = draw.size()
    stem: nn.Module = nn.Embedding(tokens, width) if tokens else nn.Linear(given, width)
    parts, words, widths = _parts(draw, sequences.MAKERS | attention.MAKERS, width)
    last = widths[-1]
    how = draw.of("mean", "first", "last", "marked", "all")
    heads = {
        "mean": Mean(last, -1, draw.yes(), out),
        "first": First(last, out, 0),
        "last": First(last, out, -1),
        "marked": Marked(last, out, draw.of(-1e9, float("-inf"), -100.0)),
        "all": nn.Linear(last, out),
    }
    model = Network(stem, parts, heads[how])
    _with_extras(draw, model, widths, axis=-1)
    size = (draw.of(2, 4), length)
    inputs = torch.randint(0, tokens, size) if tokens else torch.randn(*size, given)
    return Drawn(model, inputs, [*words, f"head: {how}"], False, tokens)


def _image_network(draw: Draw) -> Drawn:
    side, width, out = draw.of(6, 8), draw.size(), draw.of(3, 5, 8)
    given = draw.of(1, 3, 4)
    stem = nn.Conv2d(given, width, 3, padding=1)
    parts, words, widths = _parts(draw, images.MAKERS, width)
    last = widths[-1]
    how = draw.of("mean", "flat", "flat", "one", "map")
    heads = {
        "mean": Mean(last, 1, draw.yes(), out),
        "flat": Flat(last, draw.of(1, 2), out, draw.of("flatten", "view", "last")),
        "one": ToOne(last, draw.of(2, 4), out),
        "map": nn.Conv2d(last, draw.of(1, out), 1),
    }
    model = Network(stem, parts, heads[how])
    _with_extras(draw, model, widths, axis=1)
    inputs = torch.randn(draw.of(2, 4), given, side, side)
    return Drawn(model, inputs, [*words, f"head: {how}"], True)


def _with_extras(draw: Draw, model: Network, widths: list[int], axis: int) -> None:
    """Perhaps a head for training, parameters that nothing reads, an integer that is a width."""
    if draw.yes(0.2):
        model.place = draw.number(0, len(widths) - 1)
        model.aside = Mean(widths[model.place], axis, False, 3)
    if draw.yes(0.2):
        model.register_parameter("unread", nn.Parameter(torch.randn(widths[0], 3)))
    if draw.yes(0.3):
        model.steps = draw.size()
