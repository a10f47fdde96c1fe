"""One run of a model written down as tensor operators, and played back.

`record` runs the model once and notes every ATen operator with the parameters, constants and earlier values that it reads.
Where a model looks at values to choose its path, the path taken is what is written down. Large models are run on fake
tensors (shapes without data, so nothing is computed and nothing allocated) where they let themselves. `run` runs the
model again, letting the caller step in at every operator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from niwaki.errors import TraceError
from niwaki.graph.attributes import noted_reads
from niwaki.graph.inputs import Inputs, as_arguments, copied, undisturbed


@dataclass(frozen=True)
class Ref:
    """A tensor of the run, by number."""

    index: int


@dataclass(frozen=True)
class Op:
    """One operator call. Tensors in `args` and `kwargs` are `Ref`s; `layer` is the module that made the call."""

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Ref | None, ...]
    layer: str

    @property
    def name(self) -> str:
        """The operator without its overload: `aten.relu_`."""
        return str(self.func.overloadpacket)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by place or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def tensors(self) -> list[Ref]:
        """The values it reads, in order."""
        return list(refs_in((self.args, self.kwargs)))

    @property
    def result(self) -> Ref:
        """Its first output."""
        first = self.outputs[0]
        assert first is not None
        return first


@dataclass
class Tape:
    """A recorded run.

    Attributes:
        shapes, dtypes: of each value, by `Ref.index`.
        inputs, outputs: the tensors among the model's arguments and in what it returned.
        output_names: where each output stands in what the model returned: "logits", "0.1"; "" where it is all of it.
        parameters: value → name of the parameter or buffer that it is (the first name of a shared one).
        constants: value → tensor, for tensors that are none of the above and no operator made.
        fake: whether the run was on fake tensors.
        by_value: whether the model's code looked at a tensor's values, or sizes came of them, so that others might take
            another path.
        attributes: module → attributes with integers that its code read; not of torch's own layers.
    """

    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    inputs: list[Ref] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    parameters: dict[Ref, str] = field(default_factory=dict)
    constants: dict[Ref, Tensor] = field(default_factory=dict)
    fake: bool = True
    by_value: bool = False
    attributes: dict[str, set[str]] = field(default_factory=dict)


def refs_in(tree: Any) -> Iterator[Ref]:
    """All values in nested lists, tuples and dicts."""
    if isinstance(tree, Ref):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from refs_in(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from refs_in(item)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in what a model takes or returns: nested containers, dataclasses and plain objects."""
    for _, tensor in named_tensors_in(tree):
        yield tensor


def named_tensors_in(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The same, each with where it stands: `past_key_values.layers.0.keys`."""
    if isinstance(tree, Tensor):
        yield path, tree
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, (list, tuple, set)):
        items = enumerate(tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        items = ((item.name, getattr(tree, item.name)) for item in dataclasses.fields(tree))
    elif _is_record(tree):
        items = vars(tree).items()
    for name, item in items:
        yield from named_tensors_in(item, f"{path}.{name}" if path else str(name))


def _is_record(tree: Any) -> bool:
    """Whether a value is an object of somebody's class that holds attributes (a distribution, a namespace)."""
    return hasattr(tree, "__dict__") and not isinstance(tree, (type, nn.Module)) and not callable(tree)


def named_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, a shared one once under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer → the one that `named_state` knows it by: a shared one has several."""
    first: dict[int, str] = {}
    pairs = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in pairs}


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Sees every operator that reaches the dispatcher; a subclass says what to do with it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Asked by torch, which else imports its whole compiler (over a second) to keep it away from this class."""
        return False


class _Recorder(OperatorMode):
    """Writes every operator on the tape."""

    def __init__(self, model: nn.Module, layers: _LayerStack) -> None:
        super().__init__()
        self.tape = Tape()
        self._layers = layers
        self._refs = WeakIdKeyDictionary()  # a number stands for an object only while that object lives
        state = named_state(model)
        self._names = {id(tensor): name for name, tensor in state.items()}
        # `parameter.data` is another object over the same memory
        self._storages = {
            (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape)): name
            for name, tensor in state.items()
            if tensor.layout == torch.strided
        }

    def ref(self, tensor: Tensor) -> Ref:
        """The number of a tensor, a new one where it was never seen."""
        ref: Ref | None = self._refs.get(tensor)  # type: ignore[no-untyped-call]
        if ref is None:
            ref = self._refs[tensor] = Ref(len(self.tape.shapes))
            self.tape.shapes.append(tuple(tensor.shape))
            self.tape.dtypes.append(tensor.dtype)
        return ref

    def operand(self, leaf: Any) -> Any:
        """The number of a tensor that no operator has made so far or that is known; anything else as it is."""
        if not isinstance(leaf, Tensor):
            return leaf
        known = leaf in self._refs
        ref = self.ref(leaf)
        if not known:
            name = self._names.get(id(leaf))
            if name is None and leaf.layout == torch.strided:
                key = (leaf.untyped_storage()._cdata, leaf.storage_offset(), tuple(leaf.shape))
                name = self._storages.get(key)
            if name is None:
                self.tape.constants[ref] = leaf
            else:
                self.tape.parameters[ref] = name
        return ref

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        if func.namespace != "prim" and any(isinstance(item, Tensor) for item in outputs):
            read, read_by_name = tree_map(self.operand, (args, kwargs))
            refs = tuple(self.ref(item) if isinstance(item, Tensor) else None for item in outputs)
            self.tape.ops.append(Op(func, read, read_by_name, refs, self._layers.current))
            self.tape.by_value |= _size_by_value(func, args)
        elif func.namespace != "prim" and isinstance(result, (bool, int, float)):
            self.tape.by_value = True
        return result


def _size_by_value(func: OpOverload, args: tuple[Any, ...]) -> bool:
    """Whether the size of what an operator gives depends on values: a selection by mask, boxes that are left over."""
    if func.overloadpacket is torch.ops.aten.index:  # torch marks it for its masks alone
        return any(isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) for item in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


class _LayerStack:
    """Which module's forward is running, with the shapes that it was given."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._running: list[tuple[nn.Module, tuple[Any, ...]]] = []

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
            # a forward that raised and was caught by its caller never left: it is dropped with its caller
            while any(module is running for running, _ in self._running):
                if self._running.pop()[0] is module:
                    break

        with ExitStack() as stack:
            stack.callback(module_hooks.register_module_forward_pre_hook(enter).remove)
            stack.callback(module_hooks.register_module_forward_hook(leave).remove)
            yield


@contextmanager
def _plain_operators(*, fast: bool = False) -> Iterator[None]:
    """Keep torch from fusing what hides channels: a whole encoder layer, or a recurrent layer, as one operator.

    Args:
        fast: leave the quick kernels on; they change no operator but recurrent layers.
    """
    switches: tuple[tuple[Callable[[], bool], Callable[[bool], None]], ...] = (
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
        # not torch.backends.*.flags: that sets other switches too, and warns of hardware that is not there
        (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
        (torch._C._get_cudnn_enabled, torch._C._set_cudnn_enabled),
    )[: 1 if fast else None]
    before = [get() for get, _ in switches]
    try:
        for _, switch in switches:
            switch(False)
        yield
    finally:
        for (_, switch), value in zip(switches, before, strict=True):
            switch(value)


LARGE = 2**30  # bytes of parameters from which a run on fake tensors is quicker than a real one


def record(model: nn.Module, inputs: Inputs, *, fake: bool | None = None) -> Tape:
    """Run the model once in evaluation mode and write its operators down; the model is left as it was found.

    Args:
        inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the model's device.
        fake: whether to try fake tensors before a real run; None: for large models, and those on the meta device.

    Raises:
        TraceError: the forward raises; the message names the innermost module and the shapes that it was given.
    """
    if fake is None:
        tensors = named_state(model).values()
        fake = any(t.device.type == "meta" for t in tensors) or sum(t.nbytes for t in tensors) > LARGE
    if fake:
        try:
            return _record(model, inputs, fake=True)
        except Exception:  # noqa: S110  # whatever fake tensors cannot do, the real run below decides
            pass
    return _record(model, inputs, fake=False)


def _record(model: nn.Module, inputs: Inputs, *, fake: bool) -> Tape:
    layers = _LayerStack(model)
    recorder = _Recorder(model, layers)
    args, kwargs = as_arguments(copied(inputs))
    try:
        with ExitStack() as stack:
            for context in (
                undisturbed(model),
                _plain_operators(),
            ):
                stack.enter_context(context)
            if fake:
                mode = FakeTensorMode(allow_non_fake_inputs=True)
                args, kwargs = tree_map(
                    lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
                )
                stack.enter_context(mode)
            recorder.tape.inputs = [recorder.ref(tensor) for tensor in tensors_in((args, kwargs))]
            stack.enter_context(layers.watch())
            recorder.tape.attributes = stack.enter_context(noted_reads(model))
            with recorder:
                output = model(*args, **kwargs)
    except Exception as error:
        how = " (it is run in evaluation mode)" if model.training else ""
        message = f"the model cannot be run on the example inputs{how}: {layers.describe()} raised: {error}"
        raise TraceError(message, layers.current, len(recorder.tape.ops)) from error
    found = list(named_tensors_in(output))
    recorder.tape.outputs = [recorder.operand(tensor) for _, tensor in found]
    recorder.tape.output_names = [name for name, _ in found]
    if not recorder.tape.outputs:
        raise TraceError(
            f"no tensor can be seen in what the model returns ({type(output).__name__}); return tensors, or a tuple, dict "
            "or dataclass of them"
        )
    recorder.tape.fake = fake
    return recorder.tape


Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


class _Stepper(OperatorMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Lets a step run each operator of a model in the place of the dispatcher, and holds it to the tape."""

    def __init__(self, tape: Tape, step: Step) -> None:
        super().__init__()
        self._ops, self._step = tape.ops, step
        self.done = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        expected = self._ops[self.done] if self.done < len(self._ops) else None
        if expected is None or expected.func is not func or func.namespace == "prim":
            result = func(*args, **(kwargs or {}))
            outputs = result if isinstance(result, (tuple, list)) else (result,)
            if func.namespace != "prim" and any(isinstance(item, Tensor) for item in outputs):
                was = f"{expected.name} in {expected.layer or 'the model'}" if expected else "its end"
                raise TraceError(
                    f"on these inputs the model takes another path than on the example inputs: {func.overloadpacket} where "
                    f"{was} was recorded; use example inputs of the same kind"
                )
            return result
        result = self._step(self.done, expected, args, kwargs or {})
        self.done += 1
        return result


def run(model: nn.Module, tape: Tape, inputs: Inputs, step: Step) -> list[Tensor]:
    """Run the model itself on inputs of any batch size, letting the caller step in at every operator of its tape.

    As `play` (niwaki.graph.playback), but sizes that the model's code takes from its inputs are those of these inputs. The
    model is left as it was.

    Args:
        tape: of this model. Its shapes are of the example inputs; batch sizes here may differ.
        step: (position, operator, args, kwargs) → what the operator returns; it normally calls `op.func`.

    Returns:
        The model's output tensors.

    Raises:
        TraceError: the model takes another path on these inputs, or raises.
    """
    stepper = _Stepper(tape, step)
    layers = _LayerStack(model)
    args, kwargs = as_arguments(copied(inputs))
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        with ExitStack() as stack:
            for context in (
                undisturbed(model),
                _plain_operators(fast=not recurrent),
                layers.watch(),
                stepper,
            ):
                stack.enter_context(context)
            output = model(*args, **kwargs)
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(f"{layers.describe()} raised: {error}", layers.current, stepper.done) from error
    return list(tensors_in(output))
