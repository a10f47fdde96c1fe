"""How numbers of MINT are written on the command line: one for all layers, others by pattern.

`8` is for every layer; `8,fc2=250x100` has others for the layers that the pattern `fc2` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from niwaki.core.errors import SettingError

T = TypeVar("T")
Groups = tuple[int, int | None]


def by_pattern(
    text: str, read: Callable[[str], T], what: str, example: str
) -> tuple[T | None, dict[str, T]]:
    """The number for all layers, where one is given, and those of patterns.

    >>> by_pattern("0.75,conv[5-8]=0.45", float, "--upper-limit", "0.75,conv5=0.45")
    (0.75, {'conv[5-8]': 0.45})

    Raises:
        SettingError: it is written otherwise; the example is shown.
    """
    common: list[T] = []
    own: dict[str, T] = {}
    try:
        for part in text.split(","):
            pattern, equals, value = part.strip().rpartition("=")
            if equals:
                own[pattern.strip()] = read(value)
            else:
                common.append(read(value))
    except ValueError:
        raise SettingError(f"{what} is written {example}; got {text!r}") from None
    if len(common) > 1:
        raise SettingError(f"{what} has two numbers for all layers in {text!r}; write {example}")
    return (common[0] if common else None), own


def groups_of(text: str) -> Groups:
    """`250x100` as groups of the parent and of the child; one number as both.

    >>> groups_of("250x100"), groups_of("8")
    ((250, 100), (8, None))
    """
    parents, cross, children = text.partition("x")
    return int(parents), int(children) if cross else None
