"""How many units of each group a share of the channels leaves: the same share of every group
(local), or one threshold over all scores (global), within the limits of a selection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from niwaki.core.errors import BudgetError
from niwaki.graph import Group
from niwaki.pruning.selection import Selection
from niwaki.pruning.shares import refuse_over_limit, strictly_above

Counts = dict[str, int]  # group → how many units stay


def counts_of_channels(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """Counts for a share of the channels."""
    if selection.scope == "local":
        refuse_over_limit(share, selection.at_most)
    if selection.rule == "quantile":
        return _by_quantile(groups, scores, share, selection)
    choose = local_counts if selection.scope == "local" else global_counts
    return choose(groups, scores, share, selection)


def _by_quantile(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """Units above the quantile of all groups together ("global"), or of their own ("local")."""
    widths = [group.width for group in groups]
    values = [scores[group.name] for group in groups]
    if selection.scope == "global":
        stays = torch.split(strictly_above(torch.cat(values), share), widths)
    else:
        stays = tuple(strictly_above(own, share) for own in values)
    return {
        group.name: rounded(group, int(part.sum()), selection)
        for group, part in zip(groups, stays, strict=True)
    }


def floor_of(group: Group, selection: Selection) -> int:
    """The fewest units that a group may keep."""
    # 10·(1 - 0.8) is a little above 2
    spared = math.ceil(group.width * (1 - selection.at_most) - 1e-9)
    wanted = max(selection.min_units, spared)
    return min(
        group.width, math.ceil(wanted / (selection.multiple or 1)) * (selection.multiple or 1)
    )


def allowed_counts(group: Group, selection: Selection) -> list[int]:
    """The counts that a group may keep, ascending; the last is its width."""
    least, step = floor_of(group, selection), selection.multiple or 1
    return [
        count
        for count in range(least, group.width + 1)
        if count % step == 0 or count in (least, group.width)
    ]


def what_must_stay(selection: Selection) -> str:
    multiples = (
        f", and multiples of {(selection.multiple or 1)}," if (selection.multiple or 1) > 1 else ""
    )
    spared = f" and {1 - selection.at_most:.0%} of the units" if selection.at_most < 1 else ""
    return (
        f"at least {selection.min_units} unit{'s' * (selection.min_units > 1)}{spared}{multiples}"
    )


def rounded(group: Group, count: float, selection: Selection) -> int:
    """A wished count made a whole one that is allowed."""
    whole = whole_count(group, count, selection)
    return max(floor_of(group, selection), min(whole, group.width))


def whole_count(group: Group, count: float, selection: Selection) -> int:
    """A wished count, rounded."""
    whole = (
        round(count) if selection.rounding == "round" else math.floor(count + 1e-9)
    )  # 10·(1 - 0.8) is a little below 2
    if (selection.multiple or 1) > 1 and whole < group.width:
        whole = round(whole / (selection.multiple or 1)) * (selection.multiple or 1)
    return whole


def local_counts(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The same share of every group."""
    return {group.name: rounded(group, group.width * (1 - share), selection) for group in groups}


def global_counts(
    groups: list[Group], scores: Mapping[str, Tensor], share: float, selection: Selection
) -> Counts:
    """The lowest scores of all groups together go, save the best few of each group."""
    free = {
        group.name: scores[group.name].sort().values[: group.width - floor_of(group, selection)]
        for group in groups
    }
    total = sum(group.width for group in groups)
    wanted, possible = round(total * share), sum(len(values) for values in free.values())
    if wanted > possible:
        raise BudgetError(
            f"cannot remove {wanted} of {total} channels with {what_must_stay(selection)} left in "
            f"each of {len(groups)} groups; at most {possible} can go (a share of "
            f"{math.floor(1000 * possible / total) / 1000})"
        )
    order = torch.cat(list(free.values())).argsort(stable=True)[:wanted]
    owner = torch.cat(
        [torch.full((len(values),), i, device="cpu") for i, values in enumerate(free.values())]
    )
    removed = torch.bincount(owner[order], minlength=len(groups)).tolist()
    return {
        group.name: rounded(group, group.width - gone, selection)
        for group, gone in zip(groups, removed, strict=True)
    }
