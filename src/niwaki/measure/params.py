"""What a network holds: how many parameters, how many bytes."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from niwaki.core.errors import TraceError


def count_params(model: nn.Module) -> int:
    """Numbers in the model's parameters, trainable or not; a parameter that two modules share
    counts once.

    Raises:
        TraceError: a lazy parameter has no shape yet.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TraceError(
                f"parameter {name!r} has no shape yet; run the model once on an example input"
            )
    return sum(parameter.numel() for parameter in model.parameters())


def count_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers in the model's state dict; memory that several of them
    share counts once.
    """
    views: dict[int, dict[object, int]] = defaultdict(dict)
    sizes: dict[int, int] = {}
    for value in model.state_dict(keep_vars=True).values():
        if isinstance(value, Tensor):  # a module may keep extra state of any type there
            storage = value.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
            views[storage._cdata][value.storage_offset(), value.shape, value.stride()] = (
                value.nbytes
            )
    # Views of one storage lie side by side (flattened RNN weights) or over one another (ties):
    # never more than it.
    return sum(min(sizes[key], sum(parts.values())) for key, parts in views.items())
