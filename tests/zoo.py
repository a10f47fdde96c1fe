"""Tiny networks, each named after the trap that it sets for a pruning library.

`build(name)` makes one with the same weights every time: the scales, shifts and statistics of its
normalisations and its zero-initialised parameters are random, so that no wrong cut hides behind
ones and zeros. Every model says by `example` what it is called with; a second call gives other
numbers of the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils._pytree import tree_map

from niwaki.methods.base.evidence import Calibration


class Trap(nn.Module):
    """A model that knows its example; `shape` is that of its one input, with the batch axis."""

    shape: tuple[int, ...] = (2, 3, 8, 8)

    def example(self) -> Any:
        return torch.randn(self.shape)


def head(channels: int) -> nn.Sequential:
    """Pool and classify."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


# chains


class Chain(Trap):
    """A trap that is one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.body = self.layers()

    def layers(self) -> nn.Sequential:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class PlainMlp(Chain):
    shape = (4, 7)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)
        )


class LinearBatchNorm(Chain):
    shape = (4, 7)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 4)
        )


class ConvBias(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, dilation=1),
            nn.ReLU(),
            nn.Conv2d(8, 10, 3),
            nn.ReLU(),
            head(10),
        )


class ConvNoBias(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8, eps=1e-3, momentum=0.3),
            nn.ReLU(),
            nn.Conv2d(8, 10, 3, bias=False, padding_mode="reflect", padding=1),
            nn.BatchNorm2d(10, affine=False),
            nn.ReLU(),
            head(10),
        )


class DepthwiseBlock(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 16, 3, groups=8),  # a multiplier of two
            nn.ReLU(),
            head(16),
        )


class GroupedConv(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 12, 3),
            nn.ReLU(),
            nn.Conv2d(12, 8, 3, groups=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            head(8),
        )


class ConvTranspose(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 4, 2, groups=2),
            nn.ReLU(),
            head(4),
        )


class ConvOneDimension(Chain):
    shape = (2, 3, 12)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(3, 6, 3),
            nn.BatchNorm1d(6),
            nn.LeakyReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(6, 8, 3),
            nn.Flatten(),
            nn.Linear(24, 5),
        )


class FlattenToLinear(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(54, 10),
            nn.ReLU(),
            nn.Linear(10, 4),
        )


class UnflattenModule(Chain):
    """A size that is a tuple in an attribute of torch's own layer."""

    shape = (2, 7)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(7, 54),
            nn.ReLU(),
            nn.Unflatten(1, (6, 3, 3)),
            nn.Conv2d(6, 4, 3),
            nn.Flatten(),
        )


class GroupNormConv(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 12, 3),
            nn.GroupNorm(3, 12),
            nn.ReLU(),
            nn.Conv2d(12, 8, 1),
            nn.GroupNorm(8, 8),
            nn.ReLU(),
            head(8),
        )


class InstanceNormConv(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), head(8)
        )


class BatchStatisticsNorm(Chain):
    """A BatchNorm without running statistics normalises by its batch in evaluation too."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU(), head(8)
        )


class PixelShuffle(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 24, 3),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.PixelUnshuffle(2),
            head(16),
        )


class InPlaceOps(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Hardswish(inplace=True),
            head(8),
        )


class PReluChannels(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3), nn.PReLU(), head(6)
        )


class SmoothActivation(Chain):
    shape = (4, 7)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(7, 12), nn.GELU(), nn.Linear(12, 10), nn.Sigmoid(), nn.Linear(10, 4)
        )


class LayerNormMlp(Chain):
    shape = (2, 5, 6)

    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 4)
        )


class WeightNorm(Chain):
    def layers(self) -> nn.Sequential:
        return nn.Sequential(
            parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(),
            parametrizations.weight_norm(nn.Conv2d(6, 4, 1)),
            head(4),
        )


class LstmInside(Trap):
    shape = (2, 5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.lstm = nn.Linear(6, 8), nn.LSTM(8, 7, batch_first=True)
        self.hidden, self.out = nn.Linear(7, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.hidden(self.lstm(self.inp(x))[0])))
        return out


# residual networks


class ResidualBlock(nn.Module):
    def __init__(self, shortcut: nn.Module, width: int = 8, out: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(width, 6, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(6),
        )
        self.conv2, self.bn2 = nn.Conv2d(6, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class IdentityShortcut(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.block, self.head = ResidualBlock(nn.Identity()), head(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(torch.relu(self.bn(self.stem(x)))))
        return out


class ProjectionShortcut(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        projection = nn.Sequential(nn.Conv2d(8, 12, 1, 2), nn.BatchNorm2d(12))
        self.block, self.head = ResidualBlock(projection, out=12, stride=2), head(12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(torch.relu(self.stem(x))))
        return out


class PadByAttribute(nn.Module):
    """Zero channels before and behind; how many is an attribute."""

    def __init__(self, *pads: int) -> None:
        super().__init__()
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *self.pads))


class PaddedShortcut(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.block, self.head = ResidualBlock(PadByAttribute(2, 3), out=13, stride=2), head(13)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(torch.relu(self.stem(x))))
        return out


class Function(nn.Module):
    """A function as a layer; what it closes over cannot be seen from outside."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class PaddedShortcutInCode(Trap):
    """The padding is a number in a closure: it cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        shortcut = Function(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        self.block, self.head = ResidualBlock(shortcut, out=12, stride=2), head(12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(torch.relu(self.stem(x))))
        return out


class PreActivation(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1, self.conv1 = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 3, padding=1, bias=False),
        )
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.bn, self.head = nn.BatchNorm2d(8), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(torch.relu(self.bn2(self.conv1(torch.relu(self.bn1(x))))))
        out: Tensor = self.head(torch.relu(self.bn(x)))
        return out


class LayerScale(Trap):
    """A residual branch that counts for almost nothing: a wrong cut in it hardly shows."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.out = (
            nn.Linear(6, 8),
            nn.Linear(8, 12),
            nn.Linear(12, 8),
            nn.Linear(8, 4),
        )
        self.scale = nn.Parameter(torch.full((8,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.out(x + self.scale * self.b(F.gelu(self.a(x))))
        return out


# channels that are moved about


class ReusedLayer(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = torch.relu(self.conv(x))
        out: Tensor = self.head(x)
        return out


class ConcatThenConv(Trap):
    """Dense connections: every layer reads all that came before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(
            nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3)
        )
        self.head = head(18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(torch.relu(norm(x)))], 1)
        out: Tensor = self.head(torch.relu(x))
        return out


class ConcatOfItself(Trap):
    """The same channels twice in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(12, 8, 1), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.head(torch.relu(self.mix(torch.cat([torch.relu(x), torch.relu(-x)], 1))))
        return out


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ChannelShuffle(Trap):
    """Grouped convolutions with a transposition of (groups, channels) in between: 2 × 6 has no
    common factor with 6 × 2.
    """

    groups: int = 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.one, self.two = (nn.Conv2d(12, 12, 1, groups=self.groups) for _ in range(2))
        self.head = head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = shuffled(torch.relu(self.one(torch.relu(self.stem(x)))), self.groups)
        out: Tensor = self.head(torch.relu(self.two(x)))
        return out


class ChannelShuffleThree(ChannelShuffle):
    """4 × 3 against 3 × 4: the factors do not divide one another."""

    groups = 3


class RegroupedView(Trap):
    """A flat axis that is first 3 × 4 and then 4 × 3."""

    shape = (2, 7)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(7, 12), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.inp(x)).view(-1, 3, 4).flatten(1).view(-1, 4, 3))
        return out


class ChunkGate(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(6, 16), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inp(x).chunk(2, dim=-1)
        out: Tensor = self.out(value * torch.sigmoid(gate))
        return out


class ChunkThenDifferentBranches(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (
            nn.Conv2d(3, 12, 3),
            nn.Conv2d(6, 4, 1),
            nn.Conv2d(6, 8, 1),
        )
        self.head = head(12)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.stem(x)).chunk(2, dim=1)
        out: Tensor = self.head(torch.relu(torch.cat([self.left(left), self.right(right)], 1)))
        return out


class SplitByAttribute(Trap):
    """Unequal parts whose sizes are an attribute."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.parts = [4, 8]
        self.inp, self.left, self.right = nn.Linear(6, 12), nn.Linear(4, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.inp(x)).split(self.parts, dim=-1)
        out: Tensor = self.left(left) + self.right(right)
        return out


class SlicedChannels(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.a, self.b = nn.Linear(6, 12), nn.Linear(5, 4), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inp(x))
        out: Tensor = self.a(x[:, :5]) + self.b(x[:, 5:])
        return out


class FlipChannels(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.mid, self.out = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.mid(torch.relu(self.inp(x)).flip(1))))
        return out


class IndexedChannels(Trap):
    """Channels put in another order by a list of indices."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.mid, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(
            torch.relu(self.mid(torch.relu(self.inp(x))[:, [3, 1, 2, 0, 7, 6, 5, 4]]))
        )
        return out


class WrittenIntoParts(Trap):
    """A tensor that is made empty and filled through views of it."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 5), nn.Linear(6, 7), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
        joined = x.new_zeros(len(x), a.shape[1] + b.shape[1])
        joined[:, : a.shape[1]] = a
        joined[:, a.shape[1] :] += b
        out: Tensor = self.out(joined)
        return out


class HardCodedView(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(
            torch.relu(self.inp(x)).view(-1, 3, 4).transpose(1, 2).reshape(-1, 12)
        )
        return out


class HardCodedModule(Trap):
    """The literal size is in one layer, with another beside it that can be pruned."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.fixed, self.mid, self.out = (
            nn.Linear(6, 12),
            HardCodedView(),
            nn.Linear(4, 10),
            nn.Linear(10, 3),
        )
        self.fixed.inp = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.mid(self.fixed(torch.relu(self.inp(x))))))
        return out


class DivisionByChannelCount(Trap):
    """Means over channels would be another function of fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        out: Tensor = self.head(torch.relu(self.b(x - x.mean(1, keepdim=True))))
        return out


class CountedChannels(Trap):
    """A mean over channels written by hand."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mid, self.out = (
            nn.Linear(6, 8),
            nn.Linear(8, 10),
            nn.ReLU(),
            nn.Linear(10, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        out: Tensor = self.out(self.mid(self.b(x - x.sum(1, keepdim=True) / x.shape[1])))
        return out


class MaxOverChannels(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        out: Tensor = self.out(torch.relu(self.b(x.softmax(1) * x.amax(1, keepdim=True))))
        return out


class SumOverChannels(Trap):
    """A channel that goes is a summand that goes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.a(x)).sum(1).flatten(1))
        return out


class OuterProduct(Trap):
    """Bilinear features: the same channels twice in one flattened axis."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 5), nn.Linear(25, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        out: Tensor = self.out((x[:, :, None] * x[:, None, :]).flatten(1))
        return out


class SqueezeExcite(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up, self.head = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 8, 1),
            head(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        out: Tensor = self.head(x * gate)
        return out


class Upsample(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.out = (
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(14, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(x))
        y = F.interpolate(F.relu(self.up(F.avg_pool2d(x, 2))), scale_factor=2, mode="bilinear")
        out: Tensor = self.out(torch.cat([x, y], 1))
        return out


# weights that are not simply layers' own


class TiedWeights(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.c.weight = self.b.weight
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))
        return out


class SharedEmbedding(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.back = nn.Embedding(11, 8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.decode = nn.Linear(8, 11, bias=False)
        self.decode.weight = self.embed.weight

    def example(self) -> Tensor:
        return torch.randint(11, (2, 5))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        out: Tensor = self.decode(x + self.back(torch.relu(self.mid(x))))
        return out


class BareParameter(Trap):
    """Weights, a learned token and positions that no layer owns."""

    shape = (2, 5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.token = (
            nn.Parameter(torch.randn(6, 8)),
            nn.Parameter(torch.randn(1, 1, 8)),
        )
        self.position, self.register = (
            nn.Parameter(torch.randn(6, 8)),
            nn.Parameter(torch.randn(())),
        )
        self.mid, self.out = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x @ self.weight], 1) + self.position
        out: Tensor = self.out(torch.relu(self.mid(x * self.register))[:, 0])
        return out


class ConstantTensor(Trap):
    """A tensor in a plain attribute: it is no part of the state and cannot be cut."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)
        self.factor = torch.arange(8) + 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.b(torch.relu(self.a(x)) * self.factor.to(x.dtype))))
        return out


class HiddenBuffers(Trap):
    """Buffers: one with a value a channel that is not saved, one with -inf in it, one that
    counts.
    """

    factor: Tensor
    mask: Tensor
    calls: Tensor

    shape = (2, 4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)
        self.register_buffer("factor", torch.arange(8) + 1.0, persistent=False)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        look = (x @ x.mT + self.mask).softmax(-1)
        self.last = look @ torch.relu(self.a(x)) * self.factor
        out: Tensor = self.out(torch.relu(self.b(self.last)))
        return out


class WritesThroughAView(Trap):
    """Keeps what it saw in parts of its buffers, as caches and queues do."""

    queue: Tensor
    runs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.register_buffer("queue", torch.zeros(4, 8))
        self.register_buffer("runs", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        self.queue[:1] = x.mean((0, 2, 3))
        self.runs[1] += 1
        out: Tensor = self.last(x - self.queue.mean(0)[None, :, None, None] * self.runs[1])
        return out


class FrozenParameters(Chain):
    """Nothing is trainable, and one hook is in place."""

    def layers(self) -> nn.Sequential:
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), head(6)
        )
        body.requires_grad_(False)
        body[3].register_forward_hook(lambda module, args, output: 2 * output)
        return body


# attention


class FusedQkv(Trap):
    shape = (4, 5, 12)

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 2, 6
        self.scale = self.head_dim**-0.5
        self.norm, self.qkv, self.proj, self.out = (
            nn.LayerNorm(12),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        look = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        out: Tensor = self.out(x + self.proj((look @ v).transpose(1, 2).reshape(b, n, -1)))
        return out


class FusedQkvOfThreeHeads(FusedQkv):
    """As many heads as there are parts in qkv: which of the two a 3 means cannot be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 3, 4


class GroupedQueryAttention(Trap):
    shape = (5, 7, 6)

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = 4, 2, 3
        self.q, self.k, self.v = nn.Linear(6, 12), nn.Linear(6, 6), nn.Linear(6, 6)
        self.proj = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        k, v = (
            layer(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
            for layer in (self.k, self.v)
        )
        repeats = self.heads // self.kv_heads
        k, v = (
            t[:, :, None].expand(-1, -1, repeats, -1, -1).reshape(b, -1, n, t.shape[-1])
            for t in (k, v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.proj(out.transpose(1, 2).reshape(b, n, -1))
        return y


class MultiheadAttention(Trap):
    shape = (2, 5, 8)

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mid, self.out = (
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.out(torch.relu(self.mid(x)))
        return out


class EncoderLayer(Trap):
    shape = (2, 5, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = (
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(x))
        return out


class VisionTransformer(Trap):
    """Patches, a class token, positions, and one block of attention and MLP, each behind a
    LayerNorm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = (
            nn.Conv2d(3, 12, 4, stride=4),
            nn.Parameter(torch.randn(1, 1, 12)),
        )
        self.places = nn.Parameter(torch.randn(1, 5, 12))
        self.heads, self.head_dim = 4, 5
        self.norm1, self.qkv, self.proj = nn.LayerNorm(12), nn.Linear(12, 60), nn.Linear(20, 12)
        self.norm2, self.mlp = (
            nn.LayerNorm(12),
            nn.Sequential(nn.Linear(12, 18), nn.GELU(), nn.Linear(18, 12)),
        )
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def attention(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            self.qkv(x).view(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        )
        look = F.scaled_dot_product_attention(q, k, v, scale=0.4)
        out: Tensor = self.proj(look.transpose(1, 2).reshape(b, n, -1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        out: Tensor = self.head(self.norm(x)[:, 0])
        return out


# inputs, outputs, paths


class DataDependentBranch(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = (
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        big = x.abs().max() > 0
        x = torch.relu(self.a(x))
        out: Tensor = self.out(torch.relu(self.b(x) if big else self.c(x)))
        return out


class OutputTwice(Trap):
    """Features are an output too, and keep their size; what comes back is nested."""

    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        features = torch.relu(self.a(x))
        y = self.out(torch.relu(self.b(features)))
        return {"features": features, "logits": (y, [y]), "none": None}


@dataclass
class Answer:
    logits: Tensor


class DataclassOutput(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.out(torch.relu(self.a(x))))


class ObjectOutput(DataclassOutput):
    """The outputs hide in an object of no known kind; they must keep their size all the same."""

    def forward(self, x: Tensor) -> Any:
        y = self.out(torch.relu(self.a(x)))
        return SimpleNamespace(
            logits=y, law=torch.distributions.Categorical(logits=y, validate_args=False)
        )


class TwoInputs(Trap):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(3, 8), nn.Linear(8, 4)

    def example(self) -> Any:
        return torch.randn(4, 6), torch.randn(4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.a(left)) * torch.relu(self.b(right)))
        return out


class TwoInputsByName(TwoInputs):
    def example(self) -> dict[str, Any]:
        left, right = super().example()
        return {"right": right, "left": left}


class WritesIntoItsInput(Trap):
    shape = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x -= 1
        out: Tensor = self.out(torch.relu(self.a(x)))
        return out


# channels that keep to themselves, beside what does not


class Unpooling(Trap):
    """Values go back to where they came from, which another branch remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 10, 3, padding=1)
        self.c, self.d = nn.Conv2d(10, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, places = F.max_pool2d(torch.relu(self.a(x)), 2, return_indices=True)
        x = torch.relu(self.c(torch.relu(self.b(x))))
        out: Tensor = self.d(F.max_unpool2d(x, places, [2, 2]))
        return out


class PartOfPositions(Trap):
    """Positions of which the example reads the first ones, and a head that it does not read."""

    shape = (2, 5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)
        self.place, self.aside = nn.Parameter(torch.randn(9, 8)), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + self.place[: x.shape[1]]
        self.aside(x)
        out: Tensor = self.out(torch.relu(self.b(torch.relu(x))))
        return out


class Messages(Trap):
    """Steps of a sequence are added up by an index that is repeated for every channel."""

    target: Tensor

    shape = (2, 7, 6)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 4)
        self.register_buffer("target", torch.tensor([1, 0, 3, 3, 6, 2, 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        index = self.target[None, :, None].expand(len(x), -1, x.shape[2])
        out: Tensor = self.out(torch.relu(self.b(torch.zeros_like(x).scatter_add(1, index, x))))
        return out


def _in(dtype: torch.dtype, kind: type[Trap]) -> Callable[[], Trap]:
    return lambda: kind().to(dtype)


def _traps(kind: type[Trap]) -> list[type[Trap]]:
    found = [] if kind in (Trap, Chain) else [kind]
    return found + [trap for child in kind.__subclasses__() for trap in _traps(child)]


MODELS: dict[str, Callable[[], Trap]] = {
    **{trap.__name__: trap for trap in _traps(Trap)},
    "Float16": _in(torch.float16, ConvNoBias),
    "Bfloat16": _in(torch.bfloat16, IdentityShortcut),
}


def inputs(model: Trap, seed: int) -> Any:
    """The model's example with the numbers of a seed, in the model's precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = model.example()
    dtype = next(p.dtype for p in model.parameters())
    return tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, found)


def calibration(model: Trap) -> Calibration:
    """Some batches of inputs for methods that look at activations."""
    return Calibration.of([inputs(model, seed) for seed in range(3, 15)])


def build(name: str, dtype: torch.dtype | None = None) -> Trap:
    """A model of the zoo, in evaluation mode, with telling weights: the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]()
        for module in model.modules():
            if isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
                for key, tensor in (
                    *module.named_parameters(recurse=False),
                    *module.named_buffers(recurse=False),
                ):
                    if tensor.is_floating_point():
                        tensor.data = (
                            (torch.rand_like(tensor) + 0.5)
                            if "var" in key
                            else torch.randn_like(tensor)
                        )
    return model.to(dtype).eval() if dtype is not None else model.eval()
