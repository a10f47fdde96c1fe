"""What a recipe is: a paper's experiments, each run from files that the user has."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niwaki.core.errors import UnknownNameError
from niwaki.core.registry import Registry
from niwaki.papers.cell import Outcome
from niwaki.papers.line import Line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Say = Callable[[str], None]


def read_toml(text: str) -> dict[str, Any]:
    """A paper's tables."""
    tables: dict[str, Any] = tomllib.loads(text)
    return tables


@dataclass(frozen=True)
class Places:
    """Where the files are, and what to run on.

    Attributes:
        limit: at most so many test images, for a quick look; None takes all, as the paper does.
        work: folder of what is trained on the way, so that a second call goes on where the first
            one stopped.
    """

    data_root: Path | None = None
    checkpoints: Path | None = None
    device: str = "cpu"
    limit: int | None = None
    work: Path | None = None

    def checkpoint(self, name: str) -> Path:
        """Where a checkpoint should lie: the folder given, or `checkpoints` beside the data root or
        here.
        """
        if self.checkpoints is not None:
            return self.checkpoints / name
        beside = self.data_root.resolve().parent / "checkpoints" if self.data_root else None
        return (beside if beside and beside.is_dir() else Path("checkpoints")) / name


class Recipe(ABC):
    """A paper; a frozen dataclass whose fields are the settings."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """All experiments."""

    @abstractmethod
    def run(self, experiment: str, places: Places, say: Say) -> Outcome:
        """Run one experiment, telling of every cell as it is done."""

    @abstractmethod
    def cells(self, experiment: str) -> int:
        """Of how many cells `run` tells."""

    @abstractmethod
    def lines(self) -> tuple[Line, ...]:
        """All rows, with what the committed records have of them."""

    def experiments(self, only: Sequence[str] | None) -> tuple[str, ...]:
        """The experiments that were asked for; all without a word.

        Raises:
            UnknownNameError: one that the paper does not have.
        """
        for name in only or ():
            if name not in self.names():
                raise UnknownNameError("experiment", name, self.names())
        return tuple(only) if only else self.names()


RECIPES: Registry[Recipe] = Registry("paper")


def overview(papers: Sequence[str] = ()) -> tuple[Line, ...]:
    """The rows of all papers, or of those that are named."""
    return tuple(line for name in papers or RECIPES for line in RECIPES.build(name).lines())
