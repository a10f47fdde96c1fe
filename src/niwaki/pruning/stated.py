"""A cut that the model's config can state: what it cannot is left whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial

from torch import Tensor

from niwaki.core.budget import Budget
from niwaki.core.errors import BudgetError, SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph.offsets import states_layers
from niwaki.methods.base import Cut
from niwaki.pruning.followers import ties_among
from niwaki.pruning.kinds import kind
from niwaki.pruning.search import Attempt, Search
from niwaki.pruning.selection import Selection

ROUNDS = 3


def stated(
    search: Search,
    scores: Mapping[str, Tensor],
    budget: Budget,
    selection: Selection,
    attempt: Attempt,
) -> tuple[Attempt, Selection, tuple[str, ...]]:
    """The same as `uniform=True` has it, where that is asked; or where nothing is said of it, and
    the model is of a library that loads networks by their config, equal shares go of all layers,
    and the config could state what is left.

    Returns:
        the attempt, the selection that it is by, and a note on what was left whole.

    Raises:
        SurgeryError, BudgetError: of `uniform=True`, see `_stated`.
    """
    if attempt.unstated is None or selection.uniform is False:
        return attempt, selection, ()
    uniform = dataclasses.replace(selection, uniform=True)
    if selection.uniform:
        attempt, whole = _stated(search, scores, budget, uniform, attempt)
    elif _equal_shares_of_all(selection) and states_layers(search.graph.original):
        try:
            attempt, whole = _stated(search, scores, budget, uniform, attempt)
        except (SurgeryError, BudgetError):
            return attempt, selection, ()
    else:
        return attempt, selection, ()
    why = (
        "(uniform=True)"
        if selection.uniform
        else "and its library loads by that; uniform=False cuts it too, for niwaki.save and load"
    )
    note = f"left whole, as the model's config could not state its size {why}: {', '.join(whole)}"
    return attempt, uniform, (note,) if whole else ()


def _equal_shares_of_all(selection: Selection) -> bool:
    """Whether units go as they do where nothing is said: what a user asks of single layers is not
    left out for a config's sake.
    """
    said = (selection.only, selection.skip, selection.shares)
    return selection.scope == "local" and selection.parts == ("units",) and not any(said)


def _stated(
    search: Search,
    scores: Mapping[str, Tensor],
    budget: Budget,
    selection: Selection,
    attempt: Attempt,
) -> tuple[Attempt, list[str]]:
    """The same within a budget, with those kinds of groups left whole whose cut the config cannot
    state: a width of which the code takes the root, a layer that shares its entry with others.

    Returns:
        the attempt, and what was left whole.

    Raises:
        SurgeryError: what is left cannot be stated either.
        BudgetError: what is left cannot meet the budget.
    """
    whole: list[str] = []
    for _ in range(ROUNDS):
        if attempt.unstated is None:
            break
        names = unstatable(search, attempt.cut.plan)
        if not names:
            raise SurgeryError(attempt.unstated)
        whole += names
        selection = dataclasses.replace(selection, skip=(*selection.skip, *names))
        attempt = search.within_budget(scores, budget, selection)
    if attempt.unstated is not None:
        raise SurgeryError(attempt.unstated)
    return attempt, whole


def unstatable(search: Search, plan: Plan) -> list[str]:
    """Groups whose kind cannot be cut by itself so that the config states it."""
    graph = search.graph
    plain = dataclasses.replace(search, repair=partial(Cut, graph), refine=None)
    kinds: dict[tuple[str, int], list[str]] = {}
    leaders = {tie.part: tie.stream for tie in ties_among(graph, plan.kept)}
    for name in plan.kept:
        kinds.setdefault(kind(graph[leaders.get(name, name)]), []).append(name)
    whole: list[str] = []
    for names in kinds.values():
        alone = partial(_part, plan, names)
        try:
            unstated = plain.attempt(alone).unstated
        except SurgeryError as error:
            unstated = str(error)
        if unstated is not None:
            whole += names
    return whole


def _part(plan: Plan, names: Collection[str], without: Collection[str] = ()) -> Plan:
    return Plan({name: plan[name] for name in names if name not in without})
