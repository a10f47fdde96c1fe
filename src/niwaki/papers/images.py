"""Which images of a split a recipe takes."""

from __future__ import annotations

import torch

from niwaki.data import Split


def some(split: Split, count: int | None) -> Split:
    """The first so many of a fixed shuffle; all of them without a number."""
    if count is None or count >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[:count])
