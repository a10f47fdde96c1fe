"""Pieces of work without a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from niwaki.core.errors import NiwakiError

R = TypeVar("R")


class LostWorkError(NiwakiError, RuntimeError):
    """Workers died again and again on the same piece of work."""


@dataclass(frozen=True)
class Lost:
    """What stands in the place of a result.

    Attributes:
        reason: how its worker ended.
        raised: what the work itself raised, where no worker died.
    """

    reason: str
    raised: Exception | None = None

    @classmethod
    def by(cls, error: Exception) -> Lost:
        """Work that raised an error."""
        return cls(f"{type(error).__name__}: {error}", error)


def tried(work: Callable[..., R], given: Sequence[Any]) -> R | Lost:
    """What comes of a piece; an error of the work is no death, and is its result."""
    try:
        return work(*given)
    except Exception as error:  # of code that may be the user's: any
        return Lost.by(error)
