"""How a model is called on example inputs, and how it is left exactly as it was found.

`inputs` is everywhere one of three things: a tensor (the only argument), a tuple (positional
arguments) or a dict (keyword arguments). By convention the first tensor among them is batch-first:
its axis 0 counts samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from niwaki.core.errors import TraceError
from niwaki.core.inputs import Inputs as Inputs  # for this room, which gives them on
from niwaki.core.inputs import described as described
from niwaki.core.inputs import made_up as made_up
from niwaki.running.lock import PROCESS


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
        "example inputs are a tensor, a tuple of positional arguments or a dict of keyword "
        "arguments; "
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
    """Samples in `inputs`: axis 0 of the first tensor that has an axis; 1 where there is none, or
    it is empty.
    """
    args, kwargs = as_arguments(inputs)
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim:
            return max(1, value.shape[0])
    return 1


def batched(inputs: Inputs, size: int | None) -> Inputs:
    """The same inputs as a batch of another size: samples over again, or the first of them. None
    changes nothing.
    """
    old = batch_size(inputs)
    if size is None or size == old:
        return inputs
    rows = torch.arange(size, device="cpu") % old

    def change(leaf: Any) -> Any:
        fits = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == old
        return leaf[rows.to(leaf.device)] if fits else leaf

    changed: Inputs = tree_map(change, inputs)
    return changed


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """What `model.named_modules()` gives, quicker: every run of a model asks for it several times.

    Each module comes once, under its first name.
    """
    named: dict[str, nn.Module] = {"": model}
    _walk("", model, named, {id(model)})
    return named


def _walk(prefix: str, module: nn.Module, named: dict[str, nn.Module], seen: set[int]) -> None:
    for key, part in module.__dict__["_modules"].items():
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        name = prefix + key
        named[name] = part
        if part.__dict__["_modules"]:
            _walk(name + ".", part, named, seen)


@contextmanager
def preserved_mode(model: nn.Module, training: bool) -> Iterator[nn.Module]:
    """Put every submodule in training or evaluation mode; each gets its own flag back, also after
    an error.
    """
    flags = [(module, module.training) for module in modules_of(model).values()]
    try:
        if all(type(module).train is nn.Module.train for module, _ in flags):
            for module, flag in flags:
                if flag is not training:
                    module.training = training
        else:
            model.train(training)
        yield model
    finally:
        # One flag at a time: `model.train(before)` would overwrite a frozen BatchNorm inside a
        # training model.
        for module, flag in flags:
            if module.training is not flag:
                module.training = flag


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[nn.Module]:
    """Give every submodule its attributes, buffers and parameters back: a forward may count its
    calls or keep what it saw.
    """
    modules = list(modules_of(model).values())
    attributes = [(module, module.__dict__.copy()) for module in modules]
    # what a module keeps in a container of its own: a cache by device or by size
    kept = []
    for _, known in attributes:
        for value in known.values():
            kind = type(value)
            if kind is dict or kind is list:
                kept.append((value, value.copy()))
    members = [
        (table, dict(table))
        for _, known in attributes
        for table in (known["_parameters"], known["_buffers"])
        if type(table) is not dict
    ]
    buffers = _members(modules, "_buffers")
    values = [(tensor, tensor.detach().clone()) for tensor in (*buffers, *_renormed(modules))]
    data = [
        (parameter, parameter.data) for parameter in _members(modules, "_parameters")
    ]  # a forward may set another in its place
    try:
        yield model
    finally:
        for module, known in attributes:
            own = module.__dict__
            own.clear()
            own.update(known)
        for container, content in kept:
            container.clear()
            container.update(content) if isinstance(container, dict) else container.extend(content)
        for table, entries in members:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for parameter, before in data:
                if parameter.data_ptr() != before.data_ptr():
                    parameter.data = before
            for tensor, value in values:
                if tensor.grad_fn is not None:  # it was written into while gradients were on
                    tensor.detach_()
                tensor.copy_(value)


def renormed(model: nn.Module) -> list[Tensor]:
    """Parameters that a forward writes into: an embedding with `max_norm` shortens the rows that it
    reads.
    """
    return _renormed(list(modules_of(model).values()))


def _renormed(modules: list[nn.Module]) -> list[Tensor]:
    limited = [module for module in modules if getattr(module, "max_norm", None) is not None]
    return [parameter for module in limited for parameter in module.parameters(recurse=False)]


def _members(modules: list[nn.Module], table: str) -> list[Tensor]:
    """Their parameters or buffers, a shared one once: as torch lists them, in one walk."""
    members = {}
    for module in modules:
        for tensor in module.__dict__[table].values():
            if tensor is not None:
                members[id(tensor)] = tensor
    return list(members.values())


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give the random generators of torch (CPU, and every GPU in use), of Python and of numpy their
    state back at the end, also after an error; no other thread uses them here meanwhile.
    """
    with PROCESS:
        pythons, numpys = random.getstate(), np.random.get_state()
        try:
            with _preserved_torch_rng():
                yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)


def seed_all(seed: int) -> None:
    """As `torch.manual_seed`, on the devices in use.

    That one notes a seed, with the whole stack of calls, for every kind of device that is not in
    use yet: a millisecond each time, and the notes are never thrown away.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    if hasattr(torch, "xpu") and torch.xpu.is_initialized():
        torch.xpu.manual_seed_all(seed)


@contextmanager
def _preserved_torch_rng() -> Iterator[None]:
    cpu = torch.get_rng_state()
    # An uninitialised CUDA stays so: asking for its state would cost a context of several hundred
    # MB.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
