"""How a model is called on example inputs, and how it is left exactly as it was found.

`inputs` is everywhere one of three things: a tensor (the only argument), a tuple (positional arguments) or a dict
(keyword arguments). By convention the first tensor among them is batch-first: its axis 0 counts samples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from niwaki.errors import TraceError

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]


def as_arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that `inputs` stands for.

    Raises:
        TraceError: `inputs` is neither a tensor, a tuple nor a dict with string keys.
    """
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
        return (), dict(inputs)
    raise TraceError(
        f"example inputs are a tensor, a tuple of positional arguments or a dict of keyword arguments; "
        f"got {type(inputs).__name__}"
    )


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output on `inputs`; whatever the model raises goes through."""
    args, kwargs = as_arguments(inputs)
    return model(*args, **kwargs)


def copied(inputs: Inputs) -> Inputs:
    """The same inputs in tensors of their own: a model may write into what it is given."""
    return tree_map(  # type: ignore[no-any-return]  # the tree keeps its form
        lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs
    )


def batch_size(inputs: Inputs) -> int:
    """Samples in `inputs`: axis 0 of the first tensor that has an axis; 1 where there is none, or it is empty."""
    args, kwargs = as_arguments(inputs)
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim:
            return max(1, value.shape[0])
    return 1


@contextmanager
def preserved_mode(model: nn.Module, training: bool) -> Iterator[nn.Module]:
    """Put every submodule in training or evaluation mode; each gets its own flag back, also after an error."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield model
    finally:
        # One flag at a time: `model.train(before)` would overwrite a frozen BatchNorm inside a training model.
        for module, flag in flags:
            module.training = flag


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[nn.Module]:
    """Give every submodule its attributes and buffers back at the end: a forward may count its calls or keep what it saw."""
    found = [(module, dict(vars(module))) for module in model.modules()]
    # what a module keeps in a container of its own: a cache by device or by size
    kept = [(value, copy.copy(value)) for _, known in found for value in known.values() if type(value) in (dict, list)]
    members = [(table, dict(table)) for _, known in found for table in (known["_parameters"], known["_buffers"])]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield model
    finally:
        for module, known in found:
            vars(module).clear()
            vars(module).update(known)
        for container, content in kept:
            container.clear()
            container.update(content) if isinstance(container, dict) else container.extend(content)
        for table, entries in members:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give torch's random generators (CPU, and every GPU in use) their state back at the end, also after an error."""
    cpu = torch.get_rng_state()
    # An uninitialised CUDA stays so: asking for its state would cost a context of several hundred MB.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
