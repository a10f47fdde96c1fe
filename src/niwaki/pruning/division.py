"""A budget divided where it hurts least: of all counts that meet it, those of the least total loss.

With D_g(k) what the answer loses with k units of group g left, and r_g what one unit of it costs,

    n_g = argmin_k D_g(k) + λ·r_g·k

is the best division for the cost that it comes to; λ is bisected until that is the budget. What a
unit costs depends on how many others are left (a convolution costs the product of two widths), so r
is taken anew where the last division ended, a few times. Whatever λ leaves over is given back to
the groups that gain most from it.

Source: Shoham and Gersho, Efficient Bit Allocation for an Arbitrary Set of Quantizers, IEEE
Transactions on Acoustics, Speech, and Signal Processing 36, 1988.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from niwaki.pruning.costs import Cost
from niwaki.pruning.counts import Counts

ROUNDS = 8  # of taking costs anew
HALVINGS = 60
FEW = 12  # groups


@dataclass(frozen=True)
class Choice:
    """What a group may keep.

    Attributes:
        counts: that are allowed, ascending; the last is its width.
        losses: D at these counts, never rising.
    """

    counts: tuple[int, ...]
    losses: tuple[float, ...]


Choices = Mapping[str, Choice]


def divided(choices: Choices, cost: Cost, most: float, rates: Cost | None = None) -> Counts:
    """The counts of the least total loss whose cost is at most `most`.

    Args:
        cost: of the network with so many units left.
        rates: another, off which it is read what single units cost.
    """
    rates = rates or cost
    best = {name: choice.counts[0] for name, choice in choices.items()}
    lowest = loss_of(choices, best)
    price = prices(choices, {name: choice.counts[-1] for name, choice in choices.items()}, rates)
    for _ in range(ROUNDS):
        counts = at_budget(Table.of(choices, price), cost, (most, most), HALVINGS)
        full = _filled(choices, counts, cost, most, price)
        loss = loss_of(choices, full)
        if loss < lowest:
            best, lowest = full, loss
        new = prices(choices, full, rates)
        nearer = {name: math.sqrt(price[name] * new[name]) for name in price}
        if all(math.isclose(price[name], nearer[name], rel_tol=1e-3) for name in price):
            break
        price = nearer
    return best


def loss_of(choices: Choices, counts: Counts) -> float:
    return sum(c.losses[c.counts.index(counts[name])] for name, c in choices.items())


def prices(choices: Choices, counts: Counts, cost: Cost) -> dict[str, float]:
    """What one more or less unit of each group costs, there."""
    each = {}
    for name, choice in choices.items():
        width = choice.counts[-1]
        low, high = max(1, counts[name] - 1), min(width, counts[name] + 1)
        step = max(1, high - low)
        change = cost({**counts, name: high}) - cost({**counts, name: low})
        each[name] = max(change / step, 1e-30)
    return each


def at_budget(table: Table, cost: Cost, bounds: tuple[float, float], halvings: int) -> Counts:
    """The counts of the least λ whose cost is at most the upper bound; any between both will do."""
    low, high = -80.0, 80.0  # of log λ
    best = table.at(math.exp(high))
    for _ in range(halvings):
        middle = (low + high) / 2
        counts = table.at(math.exp(middle))
        spent = bounds[1] if counts == best else cost(counts)
        if spent > bounds[1]:
            low = middle
            continue
        best, high = counts, middle
        if bounds[0] <= spent < bounds[1]:
            break
    return best


@dataclass(frozen=True, eq=False)
class Table:
    """Losses and costs of all groups and counts, side by side."""

    choices: Choices
    losses: Tensor  # (groups, counts), infinite where a group has no more counts
    costs: Tensor

    @classmethod
    def of(cls, choices: Choices, price: Mapping[str, float]) -> Table:
        longest = max(len(choice.counts) for choice in choices.values())
        losses = torch.full((len(choices), longest), torch.inf, dtype=torch.float64, device="cpu")
        costs = torch.zeros_like(losses)
        scale = max(price[name] * c.counts[-1] for name, c in choices.items())
        for row, (name, choice) in enumerate(choices.items()):
            own = len(choice.counts)
            losses[row, :own] = torch.tensor(choice.losses, dtype=torch.float64, device="cpu")
            counts = torch.tensor(choice.counts, dtype=torch.float64, device="cpu")
            costs[row, :own] = counts * (price[name] / scale)
        return cls(choices, losses, costs)

    def at(self, weight: float) -> Counts:
        """The counts of the least loss + λ·cost."""
        best = (self.losses + weight * self.costs).argmin(1).tolist()
        pairs = zip(self.choices.items(), best, strict=True)
        return {name: choice.counts[place] for (name, choice), place in pairs}


def _filled(
    choices: Choices, counts: Counts, cost: Cost, most: float, price: Mapping[str, float]
) -> Counts:
    """Steps back up, the one that gains most for its price first, while the budget is met; of few
    groups, prices are taken anew at every step.
    """
    counts = dict(counts)
    open_ = {name: step for name in choices if (step := _step(choices[name], counts[name]))}
    while open_:
        if len(choices) <= FEW:
            spent = cost(counts)
            price = {
                name: max(cost({**counts, name: wider}) - spent, 1e-30) / (wider - counts[name])
                for name, (wider, _) in open_.items()
            }
        name = max(open_, key=lambda name: (open_[name][1] / price[name], name))
        wider = {**counts, name: open_[name][0]}
        following = None
        if cost(wider) <= most:
            counts = wider
            following = _step(choices[name], counts[name])
        if following is None:
            del open_[name]
        else:
            open_[name] = following
    return counts


def _step(choice: Choice, count: int) -> tuple[int, float] | None:
    """The next wider count of a group, and what each unit of that step gains."""
    place = choice.counts.index(count)
    if place + 1 == len(choice.counts):
        return None
    wider = choice.counts[place + 1]
    return wider, (choice.losses[place] - choice.losses[place + 1]) / (wider - count)


def upward(choices: Choices, counts: Counts, rates: Cost, steps: int) -> list[Counts]:
    """Wider and wider counts, each a step of one group more: the step that gains most for its cost
    first.
    """
    path = [dict(counts)]
    price = prices(choices, counts, rates)
    for _ in range(steps):
        last, options = path[-1], []
        for name, choice in choices.items():
            place = choice.counts.index(last[name])
            if place + 1 < len(choice.counts):
                wider = choice.counts[place + 1]
                gain = choice.losses[place] - choice.losses[place + 1]
                more = price[name] * (wider - last[name])
                options.append((gain / more, name, wider))
        if not options:
            break
        _, name, wider = max(options)
        path.append({**last, name: wider})
    return path[1:]


def choice_of(counts: Sequence[int], curve: Tensor) -> Choice:
    """Counts that are allowed, with their losses.

    Args:
        curve: D(k) of k = 0 … width.
    """
    return Choice(tuple(counts), tuple(float(curve[count]) for count in counts))
