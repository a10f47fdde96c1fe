"""Why an axis keeps its size, as data; `str` makes the words of it for people."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Freeze(enum.Enum):
    """The kinds of reasons, each with its words."""

    SIZE_ONE = "size one"
    EMPTY = "empty"
    SPATIAL = "spatial"
    INPUT = "model input"
    OUTPUT = "model output"
    CONSTANT = "constant tensor"
    OPERATOR = ""  # what one operator does with it: the detail says that, and where
    UNKNOWN = "unknown operator"
    FROZEN = "part of what keeps its size"
    TWICE = "occurs twice in one flattened axis"
    POSITIONS = "joined with positions (numbers counted out) by"
    UNREAD = "no operator reads it on the example inputs"
    TWIN = "run by no input that was tried is its twin"
    UNREACHED = "may be read by what no input that was tried has reached:"
    ELSEWHERE = "runs only on other inputs than the example, or in training"
    BUFFERS = "kept in buffers alone, nothing of it is learned"


@dataclass(frozen=True)
class Reason:
    """One reason; `detail` is the operator and its layer, or the name of an output.

    >>> str(Reason(Freeze.OUTPUT, "logits"))
    'model output logits'
    """

    kind: Freeze
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind.value, self.detail)))


SIZE_ONE = Reason(Freeze.SIZE_ONE)
EMPTY = Reason(Freeze.EMPTY)
SPATIAL = Reason(Freeze.SPATIAL)
PART = Reason(Freeze.FROZEN)

# not channels: places in space, and what never had more than one
PLACES = frozenset({SPATIAL, SIZE_ONE, EMPTY})
