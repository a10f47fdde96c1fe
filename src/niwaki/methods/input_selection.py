"""Network Slimming on networks whose normalisations come first: channels are chosen where a layer
reads them, and the stream stays whole.

In a pre-activation ResNet or a DenseNet a normalisation with the scale γ stands between a stream
that many layers read and the weight that reads it here. A channel whose |γ| is small says little
here, whatever it says elsewhere; so an index in front of the normalisation picks the channels that
this reader still gets, and the tensors behind it lose the others. Source: Liu, Li, Shen, Huang,
Yan, Zhang, Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, arXiv
1708.06519, section 3 (channel selection for cross-layer connections).

Example: γ = (0.9, 0.01, 0.5) in front of a convolution of three channels, and a share of a third:
the normalisation and the convolution keep the channels (0, 2); the stream keeps all three.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from niwaki.core.errors import BudgetError, SettingError
from niwaki.graph import Graph
from niwaki.graph.inference import Norm, Read
from niwaki.graph.operators.elementwise import is_function
from niwaki.running import Ref

SIZES = ("num_features", "in_channels", "in_features")  # that torch's layers state of their tensors


class SelectedInputs(nn.Module):
    """A layer behind an index on axis 1 of what it is given.

    `index` (kept,) holds the channels that the layer still gets.
    """

    index: Tensor

    def __init__(self, layer: nn.Module, index: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, …) → what the layer makes of (batch, kept, …)."""
        selected: Tensor = self.layer(x.index_select(1, self.index))
        return selected


@dataclass(frozen=True)
class Entrance:
    """A normalisation of a stream, and all weights that read what it gives.

    Attributes:
        weights: with the axis that holds the channels.
    """

    norm: Norm
    weights: tuple[tuple[str, int], ...]

    @property
    def layer(self) -> str:
        """The normalisation's layer."""
        return self.norm.mean.rpartition(".")[0]


def entrances(graph: Graph) -> tuple[Entrance, ...]:
    """Normalisations by stored statistics of what others read too, whose results go through
    functions of one number into weights alone; each layer used once.
    """
    reads = {read.position: read for read in graph.inference.reads if read.weight is not None}
    candidates = [_entrance(graph, norm, reads) for norm in graph.inference.norms]
    return tuple(entrance for entrance in candidates if entrance is not None)


def _entrance(graph: Graph, norm: Norm, reads: dict[int, Read]) -> Entrance | None:
    tape = graph.inference.tape
    uses = [ref for op in tape.ops for ref in op.tensors]
    source = tape.ops[norm.position].tensors[0]
    shared = len([op for op in tape.ops if source in op.tensors]) > 1
    if norm.scale is None or not shared or not norm.mean.rpartition(".")[0]:
        return None
    names = {name: ref for ref, name in tape.parameters.items()}
    pending, weights = [tape.ops[norm.position].result], dict[str, int]()
    while pending:
        ref = pending.pop()
        if ref in tape.outputs:
            return None
        for position, op in enumerate(tape.ops[norm.position + 1 :], norm.position + 1):
            if ref not in op.tensors:
                continue
            read = reads.get(position)
            if read is not None and op.args[read.slot] == ref:
                weight = _own(graph, read)
                if weight is None or uses.count(names.get(weight, Ref(-1))) != 1:
                    return None
                weights[weight] = read.weight_axis
            elif is_function(op) and op.result != ref:
                pending.append(op.result)
            elif not is_function(op):
                return None
    return Entrance(norm, tuple(weights.items())) if weights else None


def _own(graph: Graph, read: Read) -> str | None:
    """The weight's name, where it is a parameter as it is, with the same number of channels."""
    weight = None if read.weight is None else graph.inference.tape.parameters.get(read.weight)
    if weight is None or graph.state[weight].shape[read.weight_axis] != read.whole.size:
        return None
    return weight


def select_inputs(graph: Graph, share: float) -> nn.Module:
    """A copy of the model whose readers of streams get fewer channels: those of the least |γ| of
    all entrances together go, and every entrance keeps one at least.

    Args:
        share: of the channels of all entrances.

    Raises:
        BudgetError: the share is not in [0, 1).
        SettingError: the network has no normalisation of a stream that others read too.
    """
    if not 0 <= share < 1:
        raise BudgetError(f"the share of inputs to remove must be in [0, 1); got {share}")
    ways_in = entrances(graph)
    if not ways_in:
        raise SettingError(
            "no normalisation with a scale stands between a stream that others read too and the "
            "weights that read it here; niwaki.prune(…, criterion='bn-scale') cuts other networks"
        )
    scales = [_scale(graph, entrance) for entrance in ways_in]
    every = torch.cat(scales)
    going = torch.zeros(len(every), dtype=torch.bool, device="cpu")
    going[every.argsort(stable=True)[: round(share * len(every))]] = True
    model, start = copy.deepcopy(graph.model), 0
    for entrance, scale in zip(ways_in, scales, strict=True):
        kept = (~going[start : start + len(scale)]).nonzero()[:, 0]
        kept = kept if len(kept) else scale.argmax()[None]
        start += len(scale)
        if len(kept) < len(scale):
            _cut(model, entrance, kept)
    return model


def _scale(graph: Graph, entrance: Entrance) -> Tensor:
    assert entrance.norm.scale is not None  # entrances have one
    return graph.state[entrance.norm.scale].detach().abs().double().cpu()


def _cut(model: nn.Module, entrance: Entrance, kept: Tensor) -> None:
    """Cut all tensors of an entrance, and put the index in front of it."""
    norm = entrance.norm
    tensors = [(name, 0) for name in (norm.scale, norm.shift, norm.mean, norm.var) if name]
    for name, axis in (*tensors, *entrance.weights):
        owner, _, key = name.rpartition(".")
        module = model.get_submodule(owner)
        tensor: Tensor = getattr(module, key)
        before = tensor.shape[axis]
        tensor.data = tensor.data.index_select(axis, kept.to(tensor.device))
        for size in SIZES:
            if getattr(module, size, None) == before:
                setattr(module, size, len(kept))
    parent, _, key = entrance.layer.rpartition(".")
    layer = model.get_submodule(entrance.layer)
    index = kept.to(next(layer.parameters()).device)
    setattr(model.get_submodule(parent), key, SelectedInputs(layer, index))
