"""What the user said of a sweep: a TOML file's words, replaced by those of the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from niwaki.cli.own_code import data_words, task_of
from niwaki.cli.scope import selection_of
from niwaki.cli.voice import voice
from niwaki.core.errors import SettingError
from niwaki.data import available
from niwaki.models.imported import is_import_string
from niwaki.sweep.front import TIMES, two_measures
from niwaki.sweep.grid import AXES, Common, Grid, check_common
from niwaki.sweep.search import Range, ranges_of
from niwaki.sweep.words import read_sweep

TRIALS = 20


@dataclasses.dataclass(frozen=True)
class Asked:
    """A sweep, ready to be run."""

    grid: Grid
    common: Common
    front: tuple[str, str]
    ranges: tuple[Range, ...] = ()
    trials: int = TRIALS


def asked_of(what: Sequence[str], said: Mapping[str, Any]) -> Asked:
    """All words of a sweep, each of which is known to mean something.

    Args:
        what: models, or one TOML file.
        said: what stands on the command line; None and empty lists say nothing.

    Raises:
        SettingError, UnknownNameError: something is wrong with them.
    """
    words = _file_or_models(what)
    words |= {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in said.items()
        if value is not None and value != []
    }
    if "models" not in words:
        raise SettingError(f"{what[0]} names no models; give it models = [...]")
    own = words.get("evaluate") is not None
    front = two_measures(words.get("front", "accuracy,params"), own=own)
    grid = Grid(**{axis: words[axis] for axis in AXES if axis in words})
    shared = {field.name for field in dataclasses.fields(Common)}
    words.setdefault("trust", tuple(voice.trust))
    words["timed"] = words.get("timed", False) or not TIMES.isdisjoint(front)
    common = check_common(Common(**{key: words[key] for key in shared & set(words)}))
    task_of(common.evaluate)
    selection_of(common.scope, (), ())
    texts = words.get("search", ())
    ranges, trials = ranges_of(texts, grid), words.get("trials", TRIALS)
    if ranges:
        return Asked(grid, _on_validation(common), front, ranges, trials)
    if "trials" in words:
        raise SettingError("--trials are of a search; say what is chosen: --search t=0.1..0.9")
    return Asked(grid.checked(), common, front)


def _file_or_models(what: Sequence[str]) -> dict[str, Any]:
    files = [word for word in what if word.endswith(".toml")]
    if not files:
        return {"models": tuple(what)}
    if len(what) > 1:
        raise SettingError(f"name models, or one TOML file that does; got {' '.join(what)}")
    return read_sweep(Path(files[0]))


def _on_validation(common: Common) -> Common:
    """The same, measured on validation data: what chooses must not look at test data.

    Raises:
        SettingError: another split is asked for.
    """
    if common.data is None or is_import_string(common.data, available()):
        return common
    split = data_words(common.data)[1].get("split")
    if split == "validation":
        return common
    if split is not None:
        raise SettingError(
            f"a search chooses by what it measures, so not on split={split}; leave it out, or "
            "write split=validation"
        )
    joint = "," if ":" in common.data else ":"
    return dataclasses.replace(common, data=f"{common.data}{joint}split=validation")
