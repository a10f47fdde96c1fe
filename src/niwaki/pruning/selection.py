"""What a user says about which units go: which groups, how the budget is divided, and what limits
there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.patterns import patterns_of
from niwaki.pruning.shares import check_shares

Scope = Literal["local", "global", "cost", "auto", "quick"]
BY_LOSS = ("auto", "quick")
Rounding = Literal["round", "floor"]
Rule = Literal["exact", "quantile"]
What = Literal["units", "branches", "blocks"]


@dataclass(frozen=True)
class Selection:
    """What goes, and how it is chosen.

    Attributes:
        what: "units" (filters, neurons, heads); "branches", whole residual branches, those that
            change their stream least first; ("units", "branches") for both out of one budget, where
            it is tried how many branches go; or "blocks" of weights between groups of channels,
            which MINT's dependencies choose (`criterion="mint"`).
        scope: how a budget is divided between groups. "local" takes the same share of every group;
            "global" lays one threshold over the scores of all groups; "cost" lays one over the
            scores, as multiples of their group's mean, divided by what a unit of that group costs
            in the budget's unit, so that units with a low score and a high cost are removed first;
            "auto" measures what the network's answer loses when each group alone is cut and
            repaired, and takes the counts of the least total loss; "quick" does the same to first
            order, for the price of a few forward passes. Where these two answer worse than equal
            shares, equal shares are taken. None is what the quality says: "quick" for all budgets
            but one of channels, which takes the same share of every group; `niwaki.select` takes
            equal shares.
        only, skip: glob patterns on the names of the layers that produce the units
            (`layer*.conv1`). A group takes part when one of its layers, or its own name, matches
            `only` (if given) and none matches `skip`. Of groups that are rows and columns of one
            axis (heads and head dimensions, convolution groups and channels in a group) only the
            outer takes part, so that a share stays that share; skip it by its name, or name the
            other, to prune that.
        min_units: no group falls below this many units (or its width, where that is less).
        rounding: a local share keeps round(width·(1 - share)) units, or floor of it.
        multiple: kept counts are rounded to the nearest multiple of this; None is 1, and 8 for a
            budget of latency, as kernels like it.
        rule: "exact" removes as many units as the share says; "quantile" keeps those whose score
            lies strictly above the share's quantile (interpolated), and at least `min_units` of a
            group, without taking elsewhere what that gave back: RNI's rule (arXiv 2204.06404).
        shares: glob pattern, as for `only` → the share of units that such groups lose, whatever the
            budget: `{"layer1.*": 0.6}`. A budget of channels is then about the other groups; every
            other budget is still about the whole network.
        at_most: no group loses more than this share of its units.
        uniform: groups of one kind (the same layer of every block: names that differ in numbers
            alone) keep the same number of units, so that a config with one entry for it can state
            the sizes; what it cannot state is left whole. None does so where nothing else is asked
            (equal shares of all layers), of networks that their library loads by a config.
    """

    scope: Scope | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    min_units: int = 1
    rounding: Rounding = "round"
    multiple: int | None = None
    rule: Rule = "exact"
    shares: Mapping[str, float] = field(default_factory=dict)
    at_most: float = 1.0
    what: What | tuple[What, ...] = "units"
    uniform: bool | None = None

    @property
    def parts(self) -> tuple[What, ...]:
        """What goes, one or several."""
        return self.parts_of(self, {})

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in get_args(What):
                raise UnknownNameError("kind of part (what=)", part, get_args(What))
        if not self.parts or ("blocks" in self.parts and len(self.parts) > 1):
            raise SettingError(
                "what goes is units, branches, both of them, or blocks; prune the result again for "
                f"more; got {self.what!r}"
            )
        for name, value, known in (
            ("scope", self.scope or "local", get_args(Scope)),
            ("rounding", self.rounding, get_args(Rounding)),
            ("rule", self.rule, get_args(Rule)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        for name, number in (("min_units", self.min_units), ("multiple", self.multiple or 1)):
            if not isinstance(number, int) or number < 1:
                raise SettingError(f"{name} must be a whole number of at least 1; got {number!r}")
        check_shares(self.shares, self.at_most)
        if self.uniform and (self.parts != ("units",) or self.scope in BY_LOSS):
            raise SettingError(
                "uniform=True is about units, and divides a budget by scope='local', 'global' or "
                "'cost'"
            )

    @property
    def by_loss(self) -> bool:
        """Whether it asks what the network's answer loses."""
        return self.scope in BY_LOSS

    def or_local(self) -> Selection:
        """The same; equal shares where no scope is said."""
        return self if self.scope else replace(self, scope="local")

    @staticmethod
    def parts_of(selection: Selection | None, choices: Mapping[str, Any]) -> tuple[What, ...]:
        """What goes by a selection, or by fields of one."""
        what: What | tuple[What, ...] = (
            choices.get("what", "units") if selection is None else selection.what
        )
        return (what,) if isinstance(what, str) else tuple(what)

    @classmethod
    def of(
        cls, selection: Selection | None, choices: Mapping[str, Any], budget: Budget
    ) -> Selection:
        """A selection, or one of fields by name, with the multiple that suits a budget.

        Raises:
            UnknownNameError: no such field.
            SettingError: both a selection and fields.
        """
        known = [item.name for item in fields(cls)]
        for name in choices:
            if name not in known:
                raise UnknownNameError("setting of prune", name, known)
        if selection is not None and choices:
            raise SettingError(f"{', '.join(choices)} belong into the selection; give them in it")
        patterns = {
            name: patterns_of(choices[name]) for name in ("only", "skip") if name in choices
        }
        chosen = selection or cls(**{**choices, **patterns})
        usual = 8 if budget.unit == "latency" else 1
        return chosen if chosen.multiple is not None else replace(chosen, multiple=usual)

    def described(self) -> dict[str, Any]:
        """As JSON holds it, for a record."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }
