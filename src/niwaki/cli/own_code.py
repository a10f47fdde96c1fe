"""What the user names by `package.module:name` on the command line: a function that judges a
network, or one that gives data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from niwaki import data as data_sets
from niwaki.core.errors import DataError, NiwakiError, SettingError
from niwaki.core.inputs import Inputs
from niwaki.core.registry import parse
from niwaki.data import Dataset
from niwaki.measure import Task
from niwaki.methods.base.batches import separated
from niwaki.methods.base.evidence import Calibration
from niwaki.models.imported import imported, is_import_string, literals

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class OwnData:
    """Batches that a function of the user's gives, by split.

    Attributes:
        spec: how the user named it.
        loaders: split → batches that can be gone through again.
    """

    spec: str
    loaders: Mapping[str, Iterable[Any]]

    def split(self, name: str) -> Iterable[Any]:
        """The batches of a split.

        Raises:
            DataError: there are none of that name.
        """
        if name not in self.loaders:
            raise DataError(
                f"{self.spec} gives {', '.join(self.loaders)}, but {name!r} is needed; let it "
                "return a dict with that key, or name another --split"
            )
        return self.loaders[name]

    def inputs(self, name: str, model: nn.Module) -> Inputs:
        """Two samples to run a model on."""
        first = next(iter(self.split(name)), None)
        if first is None:
            raise DataError(f"{self.spec} gives no batches for {name!r}")
        return _rows(separated(first, model)[0], 2)

    def labelled(
        self, name: str, model: nn.Module, limit: int | None
    ) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
        """Batches with class numbers, for accuracy."""

        def again() -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in self._samples(name, model, limit):
                if labels is None or not isinstance(inputs, Tensor):
                    raise DataError(
                        f"the batches of {self.spec} are not (inputs, class numbers), so there is "
                        "no accuracy; say how well a network does with --evaluate"
                    )
                yield inputs, labels

        return again

    def calibration(self, model: nn.Module, count: int) -> Calibration:
        """The first so many training inputs; in which order they come is the loader's matter."""
        return Calibration(lambda: self._samples("train", model, count))

    def _samples(
        self, name: str, model: nn.Module, limit: int | None
    ) -> Iterator[tuple[Inputs, Tensor | None]]:
        left = limit
        for batch in self.split(name):
            if left is not None and left <= 0:
                return
            inputs, labels = separated(batch, model)
            yield _rows(inputs, left), labels if left is None or labels is None else labels[:left]
            left = None if left is None else left - _count(inputs)


def data_of(spec: str, root: Path | None) -> Dataset | OwnData:
    """A data set by its name, or by a function of the user's.

    Raises:
        NiwakiError: there is none of that name, or the function fails or gives no batches.
    """
    if not is_import_string(spec, data_sets.available()):
        return data_sets.load(spec, root)
    returned = _called(spec)
    if isinstance(returned, Dataset):
        return returned
    table = returned if isinstance(returned, Mapping) else dict.fromkeys(SPLITS, returned)
    if isinstance(returned, Mapping) and not set(returned) & set(SPLITS):
        raise DataError(f"{spec} returned a dict without any of {', '.join(SPLITS)}")
    for name, loader in table.items():
        if isinstance(loader, (str, Tensor)) or not isinstance(loader, Iterable):
            raise DataError(
                f"{spec} returned a {type(loader).__name__} for {name!r}, not batches; return a "
                "DataLoader, a list of batches, or a dict of such by split"
            )
        if iter(loader) is loader:
            raise DataError(f"{spec} returned a generator, which can be gone through only once")
    return OwnData(spec, table)


def task_of(spec: str | None) -> Task | None:
    """A function of the user's that judges a network.

    Raises:
        NiwakiError: it cannot be imported; or it fails, when it is called.
    """
    if spec is None:
        return None
    if ":" not in spec:
        raise SettingError(f"--evaluate is written package.module:function; got {spec!r}")
    function, settings = imported(spec)
    if isinstance(function, Task):
        return function

    def judged(model: nn.Module) -> Any:
        try:
            return function(model, **literals(settings))
        except NiwakiError:
            raise
        except Exception as error:  # the user's function may fail in any way
            raise NiwakiError(
                f"--evaluate {spec} failed: {type(error).__name__}: {str(error)[:300]}"
            ) from error

    return Task(judged)


def _called(spec: str) -> Any:
    function, settings = imported(spec)
    try:
        return function(**literals(settings))
    except NiwakiError:
        raise
    except Exception as error:  # the user's function may fail in any way
        raise NiwakiError(
            f"--data {spec} failed: {type(error).__name__}: {str(error)[:300]}"
        ) from error


def _rows(inputs: Inputs, count: int | None) -> Inputs:
    """The first so many samples."""
    if count is None:
        return inputs
    if isinstance(inputs, Tensor):
        return inputs[:count]
    if isinstance(inputs, tuple):
        return tuple(part[:count] if isinstance(part, Tensor) else part for part in inputs)
    return {k: part[:count] if isinstance(part, Tensor) else part for k, part in inputs.items()}


def _count(inputs: Inputs) -> int:
    parts = [inputs] if isinstance(inputs, Tensor) else inputs
    values = parts.values() if isinstance(parts, Mapping) else parts
    return next((len(part) for part in values if isinstance(part, Tensor)), 1)


def data_words(spec: str | None) -> tuple[str | None, dict[str, str]]:
    """A data set's name without, and the settings of, what is measured on it.

    >>> data_words("mnist:limit=100,normalize=half")
    ('mnist:normalize=half', {'limit': '100'})
    """
    if spec is None or is_import_string(spec, data_sets.available()):
        return spec, {}
    name, settings = parse(spec)
    kept = [key for key in settings if key in ("split", "batch", "limit")]
    ours = {key: settings.pop(key) for key in kept}
    rest = ",".join(itertools.starmap("{}={}".format, settings.items()))
    return (f"{name}:{rest}" if rest else name), ours
