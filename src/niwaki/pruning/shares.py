"""Shares by pattern, a limit to what a group loses, and RNI's rule for a threshold.

Li et al. (arXiv 1608.08710) prune every stage of a network by a share of its own; RNI (arXiv
2204.06404) keeps what scores above a quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from niwaki.core.errors import BudgetError, SettingError
from niwaki.graph import Group

Shares = Mapping[str, float]  # glob pattern → share of the units that go
SLACK = 1e-9  # shares are written in decimals: 0.8 of 10 is 8


def check_shares(shares: Shares, at_most: float) -> None:
    """Refuse shares that are none, or that ask for more than a group may lose.

    Raises:
        SettingError: one of them does.
    """
    if not 0 < at_most <= 1:
        raise SettingError(f"at_most is a share above 0 and at most 1; got {at_most!r}")
    for pattern, share in shares.items():
        if not 0 <= share < 1:
            raise SettingError(f"the share of {pattern!r} must be in [0, 1); got {share!r}")
        if share > at_most + SLACK:
            raise SettingError(
                f"the share {share:g} of {pattern!r} is more than at_most={at_most:g} allows"
            )


def refuse_over_limit(share: float, at_most: float) -> None:
    """Refuse the same share for every group where it is more than a group may lose.

    Raises:
        BudgetError: it is.
    """
    if share > at_most + SLACK:
        raise BudgetError(
            f"a budget of channels={share:g} takes that share of every group, and "
            f"at_most={at_most:g} allows less; lower it, or let groups differ with scope='global'"
        )


def strictly_above(scores: Tensor, share: float) -> Tensor:
    """Which scores lie strictly above the interpolated quantile; all of them for a share of 0.

    >>> strictly_above(torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.5)  # the median is 0.25
    tensor([False, False,  True,  True])
    """
    if not share:
        return torch.ones_like(scores, dtype=torch.bool)
    exact = scores.double()
    return exact > torch.quantile(exact, share)


def counts_by_share(
    groups: Sequence[Group],
    shares: Shares,
    rounded: Callable[[Group, float], int],
    floor: Callable[[Group], int],
    aside: Sequence[Group] = (),
) -> dict[str, int]:
    """How many units stay of every group that a pattern names.

    Args:
        rounded: group, share → units that stay, without any limit.
        floor: the fewest units that a group may keep.
        aside: groups that were to be pruned and had to be left whole: a pattern may be theirs.

    Raises:
        SettingError: a pattern without a group, or two for one group.
        BudgetError: a share leaves fewer units than must stay.
    """
    owner = _owners(groups, shares, aside)
    counts = {}
    for group in groups:
        if group.name in owner:
            pattern = owner[group.name]
            count = rounded(group, shares[pattern])
            _refuse_below(group, count, floor(group), pattern, shares[pattern])
            counts[group.name] = count
    return counts


def _owners(groups: Sequence[Group], shares: Shares, aside: Sequence[Group]) -> dict[str, str]:
    """Group → the pattern that it takes its share from."""
    owner: dict[str, str] = {}
    for pattern in shares:
        named = [group.name for group in groups if _matches(group, pattern)]
        if not named and not any(_matches(group, pattern) for group in aside):
            known = ", ".join(group.name for group in groups[:8])
            raise SettingError(
                f"shares names {pattern!r}, and no group that is to be pruned has such a layer; "
                f"groups are: {known}{', …' * (len(groups) > 8)}"
            )
        for name in named:
            if name in owner and shares[owner[name]] != shares[pattern]:
                raise SettingError(
                    f"shares has {shares[owner[name]]:g} for {owner[name]!r} and "
                    f"{shares[pattern]:g} for {pattern!r}, and group {name!r} is both"
                )
            owner.setdefault(name, pattern)
    return owner


def _matches(group: Group, pattern: str) -> bool:
    return any(fnmatchcase(layer, pattern) for layer in (*group.layers, group.name))


def _refuse_below(group: Group, count: int, least: int, pattern: str, share: float) -> None:
    if count < least:
        raise BudgetError(
            f"the share {share:g} of {pattern!r} leaves {count} of the {group.width} units of "
            f"group {group.name!r}, and at least {least} must stay"
        )
