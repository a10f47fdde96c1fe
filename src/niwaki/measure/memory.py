"""The most memory that a forward needs for its activations, seen on a run."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeCopyMode
from torch.utils._pytree import tree_leaves

from niwaki.running import Inputs, as_arguments, call, named_state, preserved_mode, preserved_rng
from niwaki.running.faked import faked
from niwaki.running.watching import OperatorMode


def peak_memory(model: nn.Module, inputs: Inputs) -> int:
    """Bytes of activations alive at once at the worst moment of one forward, in evaluation mode and
    without gradients.

    The inputs count, parameters and buffers do not; nor does what a kernel allocates for itself, or
    an allocator keeps. Run on a copy without data, so on any device; a model that cannot be run so
    is run for real.
    """
    with preserved_mode(model, training=False), preserved_rng():
        try:
            return _on_fake(model, inputs)
        except Exception:  # the real run raises what is the model's own fault
            return _peak(model, inputs)


def _on_fake(model: nn.Module, inputs: Inputs) -> int:
    with faked() as mode:
        with FakeCopyMode(mode):
            shadow, (args, kwargs) = copy.deepcopy((model, as_arguments(inputs)))
        with mode:
            return _peak(shadow, args or kwargs)


def _peak(model: nn.Module, inputs: Inputs) -> int:
    watch = _Watch([tensor.untyped_storage()._cdata for tensor in named_state(model).values()])
    for leaf in tree_leaves(as_arguments(inputs)):
        if isinstance(leaf, Tensor):
            watch.note(leaf)
    with torch.no_grad(), watch:
        call(model, inputs)
    return watch.peak


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors in whose memory a tensor lies: of a sparse one, its indices and its values."""
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    ends, places = (
        (tensor.crow_indices(), tensor.col_indices())
        if by_rows
        else (tensor.ccol_indices(), tensor.row_indices())
    )
    return ends, places, tensor.values()


class _Watch(OperatorMode):
    """Adds up the storages that operators make, and takes off those that die."""

    def __init__(self, known: list[int]) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.known = set(known)
        self.total = self.peak = 0

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return result

    def note(self, tensor: Tensor) -> None:
        """Count the memory of a tensor, unless it was counted before."""
        for part in _parts(tensor):
            self._note(part.untyped_storage())

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.alive or key in self.known:
            return
        self.alive[key] = storage.nbytes()
        self.total += self.alive[key]
        self.peak = max(self.peak, self.total)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.total -= self.alive.pop(key, 0)
