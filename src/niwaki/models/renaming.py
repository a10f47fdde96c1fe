"""Weights that were saved under other names, matched by the shape and order of the layers.

A state dict lists layers in the order in which their class defines them. Where a file's layers
have, one after the other, the shapes of the model's, each is taken for the one at its place: so
files of the papers' own classes load (`feature.0.weight`, `block1.layer.0.conv1.weight`), though
they name everything otherwise. A file whose order does not fit, or that contradicts names which
both have, is ambiguous, and refused.

A convolution's bias that the model lacks goes into the mean of the BatchNorm right behind it:
BN(x + b) with mean m is BN(x) with mean m - b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from niwaki.core.errors import CheckpointError

COUNTER = "num_batches_tracked"
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """The tensors of one module: its name, and tensors by their last word."""

    name: str
    tensors: dict[str, Tensor]

    def shapes(self, without: str = "") -> dict[str, tuple[int, ...]]:
        """By last word, but for a counter and one word."""
        ignored = (COUNTER, without)
        return {
            word: tuple(tensor.shape)
            for word, tensor in self.tensors.items()
            if word not in ignored
        }


@dataclass(frozen=True)
class Renamed:
    """Weights under the model's names.

    Attributes:
        state: model's name → tensor.
        layers: file's layer → model's layer.
        folded: layers of the file whose bias went into the BatchNorm behind them.
    """

    state: dict[str, Tensor]
    layers: dict[str, str]
    folded: tuple[str, ...] = ()

    def __str__(self) -> str:
        moved = [f"{theirs} → {ours}" for theirs, ours in self.layers.items() if theirs != ours]
        shown = ", ".join(moved[:3]) + (f", …, {moved[-1]}" if len(moved) > 3 else "")
        biases = f"; {len(self.folded)} biases went into the BatchNorm behind them"
        return (
            f"{len(moved)} layers have other names in the file and were matched by shape and "
            f"order: {shown}{biases * bool(self.folded)}"
        )


def renamed(own: State, given: State) -> Renamed:
    """A file's tensors under a model's names.

    Args:
        own: the model's tensors in its order.
        given: the file's tensors in its order.

    Raises:
        CheckpointError: the layers are not the same ones in the same order.

    >>> import torch
    >>> own = {"conv.weight": torch.zeros(2, 3), "fc.weight": torch.zeros(4, 2)}
    >>> given = {"0.weight": torch.ones(2, 3), "2.weight": torch.ones(4, 2)}
    >>> renamed(own, given).layers
    {'0': 'conv', '2': 'fc'}
    """
    ours, theirs = _layers(own), _layers(given)
    if len(ours) != len(theirs):
        raise CheckpointError(
            f"the file has {len(theirs)} layers with weights and the model {len(ours)}"
        )
    state: dict[str, Tensor] = {}
    folded = []
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        bias = _extra_bias(mine, other)
        if mine.shapes() != other.shapes(without=bias):
            raise CheckpointError(
                f"layer {index + 1} of the file, {other.name or 'the whole'!r}, has "
                f"{_said(other)}, and {mine.name or 'the whole'!r} of the model {_said(mine)}"
            )
        if bias:
            theirs[index + 1 : index + 2] = [_absorbed(other, theirs[index + 1 : index + 2])]
            folded.append(other.name)
        for word, tensor in other.tensors.items():
            if word != bias:
                state[f"{mine.name}.{word}" if mine.name else word] = tensor
    pairs = {other.name: mine.name for mine, other in zip(ours, theirs, strict=True)}
    _refuse_contradiction(pairs)
    return Renamed(state, pairs, tuple(folded))


def _layers(state: State) -> list[Layer]:
    """The modules that tensors belong to, in order."""
    layers: dict[str, Layer] = {}
    for name, tensor in state.items():
        layer, _, word = name.rpartition(".")
        layers.setdefault(layer, Layer(layer, {})).tensors[word] = tensor
    return list(layers.values())


def _extra_bias(mine: Layer, other: Layer) -> str:
    """ "bias", where the file's convolution has one and the model's has none."""
    weight = other.tensors.get("weight")
    only_theirs = "bias" in other.tensors and "bias" not in mine.tensors
    return "bias" if only_theirs and weight is not None and weight.ndim == 4 else ""


def _absorbed(convolution: Layer, behind: list[Layer]) -> Layer:
    """The BatchNorm behind a convolution, with the latter's bias in its mean."""
    bias = convolution.tensors["bias"]
    mean = behind[0].tensors.get("running_mean") if behind else None
    if mean is None or mean.shape != bias.shape:
        raise CheckpointError(
            f"{convolution.name!r} of the file has a bias, which the model has no place for, and "
            "no BatchNorm comes right behind it"
        )
    return Layer(behind[0].name, {**behind[0].tensors, "running_mean": mean - bias})


def _refuse_contradiction(pairs: Mapping[str, str]) -> None:
    """A name that both have must mean the same layer."""
    ours = set(pairs.values())
    for theirs, mine in pairs.items():
        if theirs in ours and theirs != mine:
            raise CheckpointError(
                f"by order {theirs!r} of the file would be {mine!r} of the model, which has a "
                f"layer {theirs!r} of its own: that is ambiguous"
            )


def _said(layer: Layer) -> str:
    return ", ".join(f"{word} {shape}" for word, shape in layer.shapes().items())
