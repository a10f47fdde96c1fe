"""One file for another runtime, and the proof that it computes what the network does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from niwaki.core.errors import ExportError
from niwaki.running import (
    Inputs,
    as_arguments,
    batch_size,
    batched,
    call,
    copied,
    described,
    made_up,
    preserved_mode,
    preserved_rng,
    preserved_state,
    seed_all,
)

TOLERANCE = 1e-4  # of the largest output, or of 1 where outputs are small


@dataclass(frozen=True)
class Exported:
    """A file that was run and compared.

    Attributes:
        difference: the largest difference of an output to the network's, as a share of the largest
            output (at least 1).
        batches: the batch sizes that it was compared on; one alone means that the file is fixed to
            it.
        step: batches are multiples of it, as the network takes no others.
    """

    path: Path
    bytes: int
    difference: float
    batches: tuple[int, ...]
    step: int = 1


@dataclass(frozen=True, eq=False)
class Subject:
    """A network as exporters want it: a copy on the CPU in evaluation mode, with inputs of at least
    two samples where it takes them.

    Attributes:
        step: how far the next batch size lies that the network takes; 0 where it takes one alone.
    """

    model: nn.Module
    inputs: Inputs
    step: int = 1

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs) -> Subject:
        """A copy of a model, with copies of its inputs."""
        on_cpu: Inputs = tree_map(
            lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, copied(inputs)
        )
        try:
            twin = copy.deepcopy(model).cpu().eval()
        except Exception as error:
            raise ExportError(
                f"{type(model).__name__} cannot be copied for the export: {error}"
            ) from error
        size = batch_size(on_cpu)
        subject = cls(twin.requires_grad_(False), on_cpu)
        if size == 1 and subject.takes(2):  # exporters take a size of one for a constant
            size = 2
        steps = (step for step in range(1, max(size, 4) + 1) if subject.takes(size + step))
        return cls(subject.model, batched(on_cpu, size), next(steps, 0))

    @property
    def dynamic(self) -> Any:
        """For each input tensor whether its first axis is the batch, in torch.export's words."""
        size = batch_size(self.inputs)

        def mark(leaf: Any) -> Any:
            batch = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == size
            return {0: torch.export.Dim.DYNAMIC} if batch else None

        return tree_map(
            mark, self.inputs if not isinstance(self.inputs, Tensor) else (self.inputs,)
        )

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of an attempt, in tensors of its own: torch leaves its
        marks on them.
        """
        return as_arguments(copied(self.inputs))

    def trials(self, fixed: bool) -> Iterator[tuple[int, Inputs, list[Tensor]]]:
        """Batch size, inputs and the network's outputs: the example, other numbers, and another
        batch size.
        """
        size = batch_size(self.inputs)
        other = made_up(described(self.inputs), seed=1)
        more = size + (3 if self.step == 1 else self.step)
        for inputs in (self.inputs, other, *(() if fixed else (batched(other, more),))):
            yield batch_size(inputs), inputs, tensors(self.run(inputs))

    @property
    def attempts(self) -> tuple[Any, ...]:
        """What an exporter is told of the inputs' sizes, the most general first."""
        return (self.dynamic, None) if self.step else (None,)

    def takes(self, size: int) -> bool:
        """Whether the network runs on a batch of so many samples."""
        try:
            with preserved_state(self.model):
                self.run(batched(self.inputs, size))
        except Exception:  # code that does not take it may fail in any way
            return False
        return True

    def run(self, inputs: Inputs) -> Any:
        """The network's output."""
        with torch.no_grad(), preserved_mode(self.model, training=False), preserved_rng():
            seed_all(0)
            return call(self.model, copied(inputs))


def tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, in the order in which exporters list them."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def difference(wanted: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of two lists of outputs, as a share of the largest wanted one;
    infinite where shapes differ.
    """
    if len(wanted) != len(got) or any(a.shape != b.shape for a, b in zip(wanted, got, strict=True)):
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, got, strict=True):
        a, b = a.double().nan_to_num(), b.double().nan_to_num()
        if a.numel():
            worst = max(worst, ((a - b).abs().max() / a.abs().max().clamp(min=1)).item())
    return worst


def refuse_difference(path: Path, worst: float, tolerance: float) -> None:
    """Raise where a file does not compute what the network does.

    Raises:
        ExportError: with how far it is off.
    """
    if not worst <= tolerance:
        raise ExportError(
            f"{path.name} does not compute what the network does: its output differs by "
            f"{worst:.1e} of the largest, more than {tolerance:.0e}; nothing is written"
        )


def said(failure: Exception | None) -> str:
    """The first line of an exporter's error, or its kind."""
    lines = str(failure).strip().splitlines()
    return lines[0] if lines else type(failure).__name__


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings that exporters give about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
