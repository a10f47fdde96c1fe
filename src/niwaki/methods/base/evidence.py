"""What scores and repairs may look at: the graph, its weights, chance, and, where the user has
them, inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from niwaki.core.errors import SettingError
from niwaki.core.inputs import Inputs
from niwaki.graph import Graph
from niwaki.methods.base.batches import separated

Batch: TypeAlias = tuple[Inputs, Tensor | None]
T = TypeVar("T")
Gives: TypeAlias = Iterable[Any] | Callable[[], Iterable[Any]]  # what can be gone through again


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs of the kind that the network is for; never the ones that it will be judged on.

    Attributes:
        batches: gives them afresh, as (inputs, class numbers); None in the place of the class
            numbers where there are none. Batches may be of any size (of one sample only where the
            example inputs are; some code then runs differently).
    """

    batches: Callable[[], Iterable[Batch]]

    @classmethod
    def of(
        cls,
        data: Calibration | Gives,
        model: nn.Module | None = None,
        like: Inputs | None = None,
    ) -> Calibration:
        """Batches of any kind: an iterable that can be gone through twice (a list, a DataLoader),
        or a function that gives one.

        Args:
            model: with it, labels are told from inputs, and both are moved to its device (see
                `niwaki.methods.base.batches`); without it a batch is what the model is called with.
            like: inputs that the model is known to be called with.

        Raises:
            SettingError: a generator, which can be gone through only once; or no batches.
        """
        if isinstance(data, Calibration):
            return data
        again = _again(data)
        if model is None:
            return cls(lambda: ((inputs, None) for inputs in again()))
        return cls(lambda: (separated(batch, model, like) for batch in again()))

    def inputs(self) -> Iterator[Inputs]:
        """The inputs alone."""
        return (inputs for inputs, _ in self.batches())

    @classmethod
    def labelled(
        cls, data: Iterable[tuple[Inputs, Tensor]] | Callable[[], Iterable[tuple[Inputs, Tensor]]]
    ) -> Calibration:
        """The same with class numbers, (inputs, labels) a batch, for draws that are balanced over
        the classes.

        Raises:
            SettingError: a generator, which can be gone through only once.
        """
        again = _again(data)
        return cls(lambda: ((inputs, labels) for inputs, labels in again()))


def _again(data: Iterable[T] | Callable[[], Iterable[T]]) -> Callable[[], Iterable[T]]:
    if callable(data):
        return data
    if isinstance(data, (Tensor, str, Mapping)) or not isinstance(data, Iterable):
        raise SettingError(
            f"calibration= is batches of inputs (a list, a DataLoader, a function that gives one); "
            f"got a {type(data).__name__}"
        )
    if iter(data) is data:
        raise SettingError(
            "calibration inputs can be gone through only once (a generator); pass a list, a "
            "DataLoader, or a function"
        )
    return lambda: data


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a criterion or a compensation may look at.

    Attributes:
        calibration: None where the user has no inputs.
        generator: the only source of chance.
        weights: parameters and buffers by name in the place of the model's own, for a model on the
            meta device (`niwaki.open_weights` reads them from files as they are asked for).
        say: takes remarks that the user should read (units that are dead); by default a Python
            warning.
        known: method → what it has worked out, so that its next step need not go through the inputs
            again.
    """

    graph: Graph
    calibration: Calibration | None = None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    weights: Mapping[str, Tensor] | None = None
    say: Callable[[str], None] = warnings.warn
    known: dict[object, Any] = field(default_factory=dict)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """The model's parameters and buffers by name, as they were before any pruning."""
        return self.graph.state if self.weights is None else self.weights

    def batches(self, who: str) -> Iterator[Batch]:
        """The calibration inputs, batch by batch.

        Args:
            who: the method that asks, for the message.

        Raises:
            SettingError: there are none.
        """
        if self.calibration is None:
            raise SettingError(
                f"{who} looks at what the network does with inputs; pass some as calibration= "
                "(niwaki prune --data … --calibration 512)"
            )
        empty = True
        for batch in self.calibration.batches():
            empty = False
            yield batch
        if empty:
            raise SettingError(f"{who} needs calibration inputs, but calibration= has none")
