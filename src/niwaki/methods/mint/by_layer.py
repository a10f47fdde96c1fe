"""What single layers are asked otherwise than the network: groups, samples and limits by pattern.

MINT's own commands give every pair of layers its numbers (arXiv 2003.08472, its published
scripts): a pair is named after its child here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from niwaki.core.errors import SettingError

T = TypeVar("T")


@dataclass(frozen=True)
class PairSettings:
    """What one pair of layers has of its own; None: what the network has.

    Attributes:
        groups, child_groups: of the parent's and of the child's channels.
        per_class, samples: inputs that are drawn for this pair.
    """

    groups: int | None = None
    child_groups: int | None = None
    per_class: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}")


def of_layer(by_layer: Mapping[str, T], layer: str) -> T | None:
    """The entry whose pattern a layer's name matches; the last one of several.

    >>> of_layer({"conv*": 0.75, "conv5": 0.45}, "conv5")
    0.45
    """
    entries = [entry for pattern, entry in by_layer.items() if fnmatchcase(layer, pattern)]
    return entries[-1] if entries else None


def refuse_unmatched(by_layer: Mapping[str, object], layers: Iterable[str], what: str) -> None:
    """Refuse a pattern that no layer has.

    Raises:
        SettingError: there is one; the layers are named.
    """
    names = list(layers)
    for pattern in by_layer:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = f"{', '.join(names[:8])}{', …' * (len(names) > 8)}"
            raise SettingError(f"{what} names {pattern!r}, and no such layer is scored: {known}")
