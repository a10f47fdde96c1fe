"""Every error that niwaki raises on purpose. Each message names the thing, what is wrong with it,
and the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NiwakiError(Exception):
    """The base of all errors that niwaki raises on purpose; the command line prints them without a
    traceback.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors are sent between processes: made again from their words, without `__init__`."""
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[NiwakiError], words: tuple[Any, ...]) -> NiwakiError:
    error = kind.__new__(kind, *words)
    error.args = words
    return error


def in_words(error: BaseException) -> str:
    """What an error of anybody's code says; a plain `assert` says nothing, so its kind is named.

    >>> in_words(ValueError("no such size")), in_words(AssertionError())
    ('no such size', 'AssertionError')
    """
    return str(error).strip() or type(error).__name__


class UnknownNameError(NiwakiError, ValueError):
    """A criterion, compensation, model, data set or setting that does not exist; the message lists
    all that do, the nearest first.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}")


class SettingError(NiwakiError, ValueError):
    """A setting whose value is of the wrong type or out of its range."""


class BudgetError(NiwakiError, ValueError):
    """A budget that is not a share in [0, 1), or that no allowed plan can meet."""


class TraceError(NiwakiError, RuntimeError):
    """The model could not be run on the example inputs, or cannot be read at all.

    Attributes:
        layer: the innermost module that raised, where one did; "" is the model itself.
        position: how many operators had run by then.
        other_path: whether it ran, but called other operators than were recorded.
    """

    def __init__(
        self,
        message: str,
        layer: str | None = None,
        position: int | None = None,
        *,
        other_path: bool = False,
    ) -> None:
        super().__init__(message)
        self.layer = layer
        self.position = position
        self.other_path = other_path


class SurgeryError(NiwakiError, RuntimeError):
    """The pruned module does not compute what the masked original computes; nothing is handed back.

    Attributes:
        layer: the first layer that fails or differs, where one could be named; "" is the model
            itself.
        position: the operator on the original's tape where it does.
        groups: those that it touches, where the failure is on another path than the example's.
    """

    def __init__(
        self,
        message: str,
        layer: str | None = None,
        position: int | None = None,
        groups: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.layer = layer
        self.position = position
        self.groups = groups


class CheckpointError(NiwakiError, ValueError):
    """A weights file that is missing, damaged, unsafe, or of another model."""


class ExportError(NiwakiError, RuntimeError):
    """A network that cannot be exported, or a file that does not compute what it does."""


class DataError(NiwakiError, ValueError):
    """A data set whose files are missing or damaged."""


class OutputError(NiwakiError, OSError):
    """An output folder that exists already or cannot be written."""


class MissingExtraError(NiwakiError, ImportError):
    """A library that only one of niwaki's extras installs."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed; install it with: pip install "
            f"'niwaki[{extra}]'"
        )
