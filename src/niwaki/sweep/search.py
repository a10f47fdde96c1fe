"""Settings that Optuna chooses: `{name}` in the words of a sweep, filled anew in every trial.

A trial runs all cells of the grid with its values filled in; it is as good as the mean of the first
measure over them. The sampler is seeded and told results in the order in which it asked, so that a
search that was killed asks for the same cells again, which are then only read.

Source of the sampler (TPE): Bergstra, Bardenet, Bengio, Kégl, Algorithms for Hyper-Parameter
Optimization, NIPS 2011; it is Optuna's.
"""

from __future__ import annotations

import importlib
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from niwaki.core.errors import MissingExtraError, SettingError
from niwaki.sweep.cell import record_of
from niwaki.sweep.front import is_better_higher, measures_of
from niwaki.sweep.grid import Grid
from niwaki.sweep.run import Pairs, is_done

Value = str | int | float
RunGrid = Callable[[Grid], Pairs]


@dataclass(frozen=True)
class Range:
    """What one placeholder may be.

    Attributes:
        choices: these; or numbers from `low` to `high`, whole where both are, by their logarithm
            where `log`.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Range:
        """A range from its notation.

        >>> Range.parse("t=0.1..0.9").high, Range.parse("c=l1|l2").choices
        (0.9, ('l1', 'l2'))

        Raises:
            SettingError: it is not one.
        """
        name, _, said = (part.strip() for part in text.partition("="))
        if name.isidentifier() and "|" in said:
            return cls(name, tuple(part.strip() for part in said.split("|")))
        said, log, rest = said.partition(",log")
        low, dots, high = said.partition("..")
        try:
            numbers = [float(low), float(high)]
        except ValueError:
            numbers = []
        if not name.isidentifier() or not dots or rest or len(numbers) != 2:
            raise SettingError(
                f"a range is written t=0.1..0.9, n=1..8, r=1e-4..1e-1,log or c=l1|l2; got {text!r}"
            )
        if not numbers[0] < numbers[1] or (log and numbers[0] <= 0):
            raise SettingError(
                f"a range rises, and from above 0 where it goes by its logarithm; got {text!r}"
            )
        whole = all(re.fullmatch(r"-?\d+", part.strip()) for part in (low, high))
        return cls(name, (), numbers[0], numbers[1], whole, bool(log))

    def drawn(self, trial: Any) -> Value:
        """A value of an Optuna trial."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return int(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return float(f"{trial.suggest_float(self.name, self.low, self.high, log=self.log):.6g}")


@dataclass(frozen=True)
class Found:
    """The best trial.

    Attributes:
        pairs: all cells of all trials.
    """

    values: Mapping[str, Value]
    value: float
    pairs: Pairs


def ranges_of(texts: Sequence[str], grid: Grid) -> tuple[Range, ...]:
    """The ranges, each of which some word of the grid names.

    Raises:
        SettingError: a placeholder without a range, a range without one, or two of a name.
    """
    ranges = tuple(map(Range.parse, texts))
    words = " ".join([*grid.criteria, *grid.repairs, *grid.budgets])
    named, known = set(re.findall(r"{(\w+)}", words)), [item.name for item in ranges]
    for name in sorted(named ^ set(known)):
        raise SettingError(
            f"{{{name}}} stands in no criterion, repair or budget"
            if name in known
            else f"{{{name}}} has no range; give one, as --search {name}=0.1..0.9"
        )
    if len(set(known)) < len(known):
        raise SettingError("two ranges have the same name; give each placeholder one")
    return ranges


def search(grid: Grid, ranges: Sequence[Range], trials: int, measure: str, run: RunGrid) -> Found:
    """Fill the grid so many times and keep what was best.

    Args:
        measure: its mean over the cells of a trial counts; a trial with a cell that failed is none.

    Raises:
        MissingExtraError: Optuna is not installed.
        SettingError: no trial came to an end.
    """
    optuna = _optuna()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=grid.seeds[0]))
    pairs: Pairs = []
    for _ in range(trials):
        trial = study.ask()
        values = {item.name: item.drawn(trial) for item in ranges}
        made = run(grid.filled(values).checked())
        pairs += [pair for pair in made if pair[0] not in {cell for cell, _ in pairs}]
        trial.set_user_attr("values", values)
        _tell(optuna, study, trial, [outcome for _, outcome in made], measure)
    if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        raise SettingError("no trial of the search came to an end; the table says why")
    best = study.best_trial
    return Found(best.user_attrs["values"], best.user_attrs["measure"], pairs)


def _tell(optuna: Any, study: Any, trial: Any, outcomes: Sequence[Any], measure: str) -> None:
    records = [record_of(outcome) for outcome in outcomes if is_done(outcome)]
    known = [measures_of(record) for record in records]
    if len(records) < len(outcomes) or not all(measure in measures for measures in known):
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    mean = statistics.fmean(measures[measure] for measures in known)
    trial.set_user_attr("measure", mean)
    study.tell(trial, -mean if is_better_higher(measure, records[0]) else mean)


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise MissingExtraError("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
