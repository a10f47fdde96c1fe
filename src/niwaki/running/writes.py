"""A model is run and left as it was, also the parameters that its forward writes into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from niwaki.running.inputs import preserved_mode, preserved_rng, preserved_state, renormed
from niwaki.running.tape import tensors_in
from niwaki.running.watching import OperatorMode


@contextmanager
def undisturbed(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Run a model in evaluation mode, or in training, without gradients, and leave its mode, its
    state and chance as they were.
    """
    with (
        torch.no_grad(),
        preserved_state(model),
        preserved_mode(model, training=training),
        preserved_rng(),
        written_back(model) if training else nullcontext(),
    ):
        yield


@contextmanager
def written_back(model: nn.Module) -> Iterator[None]:
    """Give the parameters that operators write into their values back: in training a forward may
    let one encoder follow another.
    """
    writes = ParameterWrites(model)
    try:
        with _Watched(writes):
            yield
    finally:
        writes.undo()


class _Watched(OperatorMode):
    """Shows every operator to who keeps what it overwrites."""

    def __init__(self, writes: ParameterWrites) -> None:
        super().__init__()
        self._writes = writes

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._writes.watch(func, args, kwargs)
        return func(*args, **kwargs)


class ParameterWrites:
    """Keeps a copy of a parameter from just before the first operator that writes into it."""

    def __init__(self, model: nn.Module) -> None:
        # an embedding with `max_norm` shortens its rows; whoever runs it knows
        known = {id(parameter) for parameter in renormed(model)}
        self._parameters = {
            parameter.untyped_storage()._cdata: (name, parameter)
            for name, parameter in model.named_parameters()
            if id(parameter) not in known and parameter.layout == torch.strided
        }
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """To be called before each operator."""
        if not func._schema.is_mutable:
            return
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[place] if place < len(args) else kwargs.get(argument.name)
                for tensor in tensors_in(value):
                    self._keep(tensor)

    def _keep(self, tensor: Tensor) -> None:
        name, parameter = self._parameters.get(tensor.untyped_storage()._cdata, ("", None))
        if parameter is not None and name not in self._before:
            self._before[name] = (parameter, parameter.detach().clone())

    def undo(self) -> list[str]:
        """Give all parameters their values back; the names of those that had others."""
        changed = []
        with torch.no_grad():
            for name, (parameter, value) in self._before.items():
                if not torch.equal(parameter, value):
                    parameter.copy_(value)
                    changed.append(name)
        return changed
