"""What a named data set is made of: its facts, its settings, and the way from files to splits."""

from __future__ import annotations

import abc
import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

from niwaki.core.errors import DataError, SettingError
from niwaki.core.registry import Registry
from niwaki.data import hub
from niwaki.data.arrays import Arrays, Layout, checked
from niwaki.data.dataset import Dataset, carve
from niwaki.data.folders import candidates
from niwaki.data.split import HeldSplit, Normalization, Split


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """A data set's settings.

    `normalize` is "none" (pixels / 255), "half" ((pixels / 255 - 0.5) / 0.5) or one of the data
    set's own `statistics`; `validation` is the share of every class that is taken from train for
    validation.
    """

    statistics: ClassVar[dict[str, Normalization]]
    channels: ClassVar[int]
    normalize: str = "standard"
    validation: float = 0.1

    def __post_init__(self) -> None:
        options = {"none", "half", *self.statistics}
        if self.normalize not in options:
            raise SettingError(
                f"normalize is one of {', '.join(sorted(options))}; got {self.normalize!r}"
            )
        if not 0 <= self.validation < 1:
            raise SettingError(f"validation is a share in [0, 1); got {self.validation}")

    @property
    def normalization(self) -> Normalization:
        """What `normalize` names."""
        plain = {"none": Normalization((0.0,) * self.channels, (1.0,) * self.channels)}
        half = {"half": Normalization((0.5,) * self.channels, (0.5,) * self.channels)}
        return (plain | half | self.statistics)[self.normalize]

    @abc.abstractmethod
    def load(self, root: Path | None) -> Dataset:
        """The data set, whose files are at `root`; no image is read yet."""


sources: Registry[Source] = Registry("data set")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Where a data set that is held in memory comes from, and what must come out."""

    name: str
    classes: int
    input_shape: tuple[int, int, int]  # channels, height, width
    hub_name: str  # on huggingface.co/datasets
    layouts: tuple[Layout, ...]
    label: str = "label"  # the hub's column of labels


@dataclasses.dataclass(frozen=True)
class FileSource(Source):
    """A data set in files: in the user's folder, or fetched from the hub where none is given."""

    facts: ClassVar[Facts]

    def load(self, root: Path | None) -> Dataset:
        """Find the files of at least one split; read none."""
        if root is not None and not any(self._locate(root, split) for split in ("test", "train")):
            raise self._nowhere(root, "train", "test")
        facts = self.facts
        read = functools.partial(self._read, root)
        return Dataset(facts.name, facts.classes, facts.input_shape, self.normalization, read)

    def _read(self, root: Path | None, name: str) -> dict[str, Split]:
        part = "test" if name == "test" else "train"
        images, labels = self._arrays(root, part)
        split = HeldSplit(images, labels, self.normalization)
        return (
            {"test": split}
            if name == "test"
            else carve(split, self.validation, ("train", "validation"))
        )

    def _arrays(self, root: Path | None, part: str) -> Arrays:
        facts = self.facts
        if root is None:
            fetched = hub.fetch(facts.name, facts.hub_name, part, facts.label, self.channels)
            return checked(fetched, facts.classes, facts.input_shape, facts.hub_name)
        located = self._locate(root, part)
        if located is None:
            raise self._nowhere(root, part)
        layout, files = located
        where = ", ".join(map(str, files))
        return checked(layout.read(files, self.channels), facts.classes, facts.input_shape, where)

    def _locate(self, root: Path, part: str) -> tuple[Layout, list[Path]] | None:
        for folder in self._candidates(root):
            for layout in self.facts.layouts:
                files = layout.files(folder, part)
                if files:
                    return layout, files
        return None

    def _candidates(self, root: Path) -> list[Path]:
        others = {name for name in sources if name != self.facts.name}
        return candidates(root, self.facts.name, others)

    def _nowhere(self, root: Path, *parts: str) -> DataError:
        wanted = "; or ".join(
            layout.wanted(part) for part in parts for layout in self.facts.layouts
        )
        looked = ", ".join(map(str, self._candidates(root)))
        return DataError(
            f"no {' or '.join(parts)} files of {self.facts.name} found: looked for {wanted}; in "
            f"{looked}"
        )
