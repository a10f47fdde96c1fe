"""What is swept: five axes, what all cells share, and the cells that they make.

>>> grid = Grid(models=("digits-cnn",), criteria=("l1", "l2"), budgets=("0.3", "macs=0.5"))
>>> [cell.label for cell in grid.cells()][:2]
['digits-cnn, l1, auto, 0.3, seed 0', 'digits-cnn, l1, auto, macs=0.5, seed 0']
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from niwaki import models
from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.registry import parse
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.base.recovery import RECOVERIES

AXES = ("models", "criteria", "repairs", "budgets", "seeds")
SHORT = 60  # characters of a file's name before what tells it apart


@dataclass(frozen=True)
class Cell:
    """One pruning.

    Attributes:
        model: as `niwaki prune` takes it; `NAME@FILE` has its weights from a file.
    """

    model: str
    criterion: str
    repair: str
    budget: str
    seed: int

    @property
    def label(self) -> str:
        """All of it, for people."""
        return f"{self.model}, {self.criterion}, {self.repair}, {self.budget}, seed {self.seed}"

    @property
    def name(self) -> str:
        """A file's name that no other cell has."""
        words = "".join(c if c.isalnum() else "-" for c in self.label.lower())
        plain = "-".join(part for part in words.split("-") if part)[:SHORT].rstrip("-")
        whole = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{plain}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Common:
    """What is the same for all cells, in the words of `niwaki prune`.

    Attributes:
        timed: latency and peak memory are measured too, a second or two a cell.
        trust: packages whose code a folder may name.
    """

    data: str | None = None
    data_root: str | None = None
    calibration: int | None = None
    scope: str = "local"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    recovery: tuple[str, ...] = ()
    evaluate: str | None = None
    input_shape: str | None = None
    device: str = "cpu"
    timed: bool = False
    trust: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep.

    Raises:
        SettingError: an axis is empty, or names the same thing twice.
        UnknownNameError: a criterion, repair or model that does not exist.
    """

    models: tuple[str, ...]
    criteria: tuple[str, ...] = ("l2",)
    repairs: tuple[str, ...] = ("auto",)
    budgets: tuple[str, ...] = ("0.5",)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for axis in AXES:
            values = getattr(self, axis)
            if not values:
                raise SettingError(f"there is nothing to sweep: {axis} is empty; name at least one")
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise SettingError(f"{axis} has {twice[0]!r} twice; name each once")

    def checked(self) -> Grid:
        """The same, once every word of it is known to mean something."""
        for model in self.models:
            _check_model(model)
        for criterion in self.criteria:
            CRITERIA.build(criterion)
        for repair in self.repairs:
            COMPENSATIONS.build(repair)
        for budget in self.budgets:
            Budget.parse(budget)
        return self

    def cells(self) -> tuple[Cell, ...]:
        """All combinations, the last axis the quickest."""
        return tuple(itertools.starmap(Cell, itertools.product(*(getattr(self, a) for a in AXES))))

    def filled(self, values: Mapping[str, object]) -> Grid:
        """The same with `{name}` in the words of criteria, repairs and budgets replaced."""
        return dataclasses.replace(
            self,
            criteria=tuple(_filled(text, values) for text in self.criteria),
            repairs=tuple(_filled(text, values) for text in self.repairs),
            budgets=tuple(_filled(text, values) for text in self.budgets),
        )


def _filled(text: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def split_model(word: str) -> tuple[str, Path | None]:
    """A model and its weights file.

    >>> split_model("resnet20:shortcut=padding@w.safetensors")
    ('resnet20:shortcut=padding', PosixPath('w.safetensors'))
    """
    name, at, file = word.rpartition("@")
    return (name, Path(file)) if at else (word, None)


def _check_model(word: str) -> None:
    """Refuse a plain name that is not listed, and a weights file that is not there."""
    name, weights = split_model(word)
    if weights is not None and not weights.is_file():
        raise SettingError(f"{word}: there is no weights file {weights}")
    plain = parse(name)[0] if "/" not in name else name
    if ":" not in name and not Path(name).is_dir() and plain not in models.available():
        raise UnknownNameError("model", plain, models.available())


def check_common(common: Common) -> Common:
    """What all cells share, once its names are known to mean something."""
    for recovery in common.recovery:
        RECOVERIES.build(recovery)
    if common.calibration is not None and common.calibration < 1:
        raise SettingError(f"calibration is a number of inputs from 1; got {common.calibration}")
    return common
