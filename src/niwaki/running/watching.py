"""What recording a model and running it again share: operators seen one by one, and which module is
running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from niwaki.running.foreach import one_by_one, single_form
from niwaki.running.inputs import modules_of
from niwaki.running.lock import PROCESS
from niwaki.running.tape import tensors_in


class OperatorMode(TorchDispatchMode):
    """Sees every operator that reaches the dispatcher; a subclass says in `on_operator` what to do
    with it. An operator on many tensors (`torch._foreach_add_`) is seen tensor by tensor.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own has no types

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Asked by torch, which else imports its whole compiler (over a second) to keep it away
        from this class.
        """
        return False

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operator gives; normally `func(*args, **kwargs)`."""
        raise NotImplementedError

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        single = single_form(func)
        if single is None:
            return self.on_operator(func, args, kwargs or {})
        with self:
            return one_by_one(func, single, args, kwargs or {})


_CALL = nn.Module._call_impl.__code__


class LayerStack:
    """Which module's forward is running, with the shapes that it was given."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in modules_of(model).items()}
        self._running: list[tuple[nn.Module, tuple[Any, ...]]] = []

    @classmethod
    def at(cls, model: nn.Module, error: Exception) -> LayerStack:
        """The modules that were running when an error was raised, read off its traceback."""
        stack, place = cls(model), error.__traceback__
        while place is not None:
            frame, place = place.tb_frame, place.tb_next
            if frame.f_code is _CALL and id(frame.f_locals["self"]) in stack._names:
                stack._running.append((frame.f_locals["self"], frame.f_locals["args"]))
        return stack

    @property
    def current(self) -> str:
        return self._names[id(self._running[-1][0])] if self._running else ""

    def describe(self) -> str:
        """The innermost running module, its class and its input shapes."""
        if not self._running:
            return "the model"
        module, args = self._running[-1]
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(args)) or "no tensors"
        return f"{self.current or 'the model'} ({type(module).__name__}) on {shapes}"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Follow the run by hooks on all modules for as long as it lasts."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if id(module) in self._names:
                self._running.append((module, args))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            # a forward that raised and was caught by its caller never left: it is dropped with its
            # caller
            while any(module is running for running, _ in self._running):
                if self._running.pop()[0] is module:
                    break

        with ExitStack() as stack:
            stack.callback(module_hooks.register_module_forward_pre_hook(enter).remove)
            stack.callback(module_hooks.register_module_forward_hook(leave).remove)
            yield


@contextmanager
def plain_operators(*, fast: bool = False) -> Iterator[None]:
    """Keep torch from fusing what hides channels: a whole encoder layer, or a recurrent layer, as
    one operator.

    Args:
        fast: leave the quick kernels on; they change no operator but recurrent layers.
    """
    switches: tuple[tuple[Callable[[], bool], Callable[[bool], None]], ...] = (
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
        # not torch.backends.*.flags: that sets other switches too, and warns of hardware that is
        # not there
        (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
        (torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled),
    )[: 1 if fast else None]
    with PROCESS:
        before = [get() for get, _ in switches]
        try:
            for _, switch in switches:
                switch(False)
            yield
        finally:
            for (_, switch), value in zip(switches, before, strict=True):
                switch(value)
