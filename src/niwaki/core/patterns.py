"""The one matcher of glob patterns: `layer*.conv1` on names of layers, groups and branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from niwaki.core.errors import SettingError

SHOWN = 8  # names in a message


def patterns_of(text: str | Sequence[str]) -> tuple[str, ...]:
    """One pattern, or several, as a tuple."""
    return (text,) if isinstance(text, str) else tuple(text)


def matches(names: str | Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether a name, or one of several names of the same thing, matches one of the patterns.

    >>> matches("layer1.0.conv1", ("layer*.conv1",))
    True
    """
    known = (names,) if isinstance(names, str) else tuple(names)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in known)


def refuse_strangers(what: str, names: Sequence[str], patterns: Iterable[str]) -> None:
    """Raise where a pattern matches none of the names.

    Args:
        what: these are names of: "layer", "branch".

    Raises:
        SettingError: with the pattern, and the first names that there are.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            first = ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)
            raise SettingError(f"no {what} is named like {pattern!r}; there are: {first}")
