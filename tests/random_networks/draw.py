"""Chance for random networks, and what their parts share.

All sizes come from one short list: widths, heads, lengths and limits that are equal by accident are
what misleads a tool that follows integers by their value.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

SIZES = (4, 6, 8, 12)
T = TypeVar("T")


class Draw:
    """A source of choices, the same for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, *choices: T) -> T:
        """One of these."""
        return self._random.choice(choices)

    def size(self) -> int:
        """A width, or whatever else is counted."""
        return self.of(*SIZES)

    def yes(self, share: float = 0.5) -> bool:
        """True with this chance."""
        return self._random.random() < share

    def number(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return self._random.randint(low, high)

    def divisor(self, width: int, *choices: int) -> int:
        """One of the choices that divide a width; 1 where none does."""
        return self.of(*([n for n in choices if width % n == 0] or [1]))

    def activation(self) -> nn.Module:
        """Any activation: some are zero at zero, some grow with their input, some do neither."""
        kinds = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU, nn.Softplus, nn.Identity)
        out: nn.Module = self.of(*kinds)()
        return out


# a part of a network and how many channels it gives
Part = tuple[nn.Module, int]
Maker = Callable[[Draw, int], Part]


class Counts(nn.Module):
    """Code that computes a number from a count of channels."""

    def count(self, x: Tensor, axis: int = -1) -> int:
        """Channels of an axis."""
        return x.shape[axis]


class Rms(Counts):
    """Root mean square norm, as people write it."""

    def __init__(self, width: int, *, root: bool = False) -> None:
        super().__init__()
        self.weight, self.root = nn.Parameter(torch.ones(width)), root

    def forward(self, x: Tensor) -> Tensor:
        if self.root:
            scale = x.norm(dim=-1, keepdim=True) * self.count(x) ** -0.5
            out: Tensor = x / (scale + 1e-6) * self.weight
            return out
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Residual(nn.Module):
    """What a body makes of its input, added to it."""

    def __init__(self, body: nn.Module, norm: nn.Module | None = None, after: bool = False) -> None:
        super().__init__()
        self.body, self.norm, self.after = body, norm or nn.Identity(), after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.body(x)) if self.after else x + self.body(self.norm(x))
        return out


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """The network with random values in every parameter and statistic that starts as a constant."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.isinf().any():
            continue
        if bool((tensor == tensor.flatten()[0]).all()):
            low = 0.5 if "var" in name or "weight" in name else -0.5
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model
