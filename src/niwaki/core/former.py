"""Keywords of earlier versions: whoever still writes one is told what has taken its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from niwaki.core.errors import SettingError

P = ParamSpec("P")
T = TypeVar("T")


def formerly(**now: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for functions that had more keywords.

    >>> @formerly(data="evaluate= takes batches")
    ... def prune(*, evaluate=None): ...
    >>> prune(data=[])
    Traceback (most recent call last):
    niwaki.core.errors.SettingError: prune has no data= any more: evaluate= takes batches

    Args:
        now: former keyword → what to write in its place.
    """

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in kwargs:
                if name in now:
                    raise SettingError(f"{function.__name__} has no {name}= any more: {now[name]}")
            return function(*args, **kwargs)

        return called

    return decorated
