"""A model is run once, and its operators are written down.

Where a model looks at values to choose its path, the path taken is what is written down. Large
models are run on fake tensors (shapes without data, so nothing is computed and nothing allocated)
where they let themselves.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from niwaki.core.errors import TraceError, in_words
from niwaki.running.attributes import noted_reads
from niwaki.running.faked import faked
from niwaki.running.hollow import HollowRun
from niwaki.running.inputs import Inputs, as_arguments, copied, modules_of
from niwaki.running.lines import calling_line
from niwaki.running.passing import PassedIntegers
from niwaki.running.tape import (
    Op,
    Ref,
    Tape,
    named_state,
    named_tensors_in,
    tensors_in,
    with_leaves,
)
from niwaki.running.watching import LayerStack, OperatorMode, plain_operators
from niwaki.running.writes import ParameterWrites, undisturbed

LARGE = 2**30  # bytes of parameters from which a run on fake tensors is quicker than a real one


def record(
    model: nn.Module,
    inputs: Inputs,
    *,
    fake: bool | None = None,
    training: bool = False,
    sources: bool = False,
    hollow: HollowRun | None = None,
) -> Tape:
    """Run the model once in evaluation mode and write its operators down; the model is left as it
    was found.

    Args:
        inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the model's
            device.
        fake: whether to try fake tensors before a real run; None: for large models, and those on
            the meta device.
        training: run it in training mode, with its state left as it was all the same.
        sources: whether to follow integers from the attributes of modules to operators, where the
            code bears it.
        hollow: run the operators without their numbers.

    Raises:
        TraceError: the forward raises; the message names the innermost module and the shapes that
            it was given.
    """
    if hollow is not None:
        return _record(model, inputs, training=training, fast=True, hollow=hollow)
    if fake is None:
        tensors = named_state(model).values()
        fake = (
            any(t.device.type == "meta" for t in tensors) or sum(t.nbytes for t in tensors) > LARGE
        )
    if fake:
        try:
            return _record(model, inputs, fake=True, training=training, sources=sources)
        except Exception:  # noqa: S110  # whatever fake tensors cannot do, the real run below decides
            pass
    if sources:
        try:
            return _unfused(model, inputs, training=training, sources=True)
        except TraceError:  # code may ask for `type(n) is int`: the plain run decides
            pass
    return _unfused(model, inputs, training=training, sources=False)


def _unfused(model: nn.Module, inputs: Inputs, *, training: bool, sources: bool) -> Tape:
    """A real run; with the quick kernels of torch's if they fuse nothing, which they do to
    recurrent layers alone.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_of(model).values())
    if not recurrent:
        tape = _record(model, inputs, training=training, sources=sources, fast=True)
        if not any(word in op.name for op in tape.ops for word in ("mkldnn", "cudnn")):
            return tape
    return _record(model, inputs, training=training, sources=sources)


def _record(
    model: nn.Module,
    inputs: Inputs,
    *,
    fake: bool = False,
    training: bool = False,
    sources: bool = False,
    fast: bool = False,
    hollow: HollowRun | None = None,
) -> Tape:
    layers = LayerStack(model)
    recorder = _Recorder(model, layers)
    recorder.tape.fake = fake
    args, kwargs = as_arguments(copied(inputs))
    try:
        with ExitStack() as stack:
            for context in (
                undisturbed(model, training=training),
                plain_operators(fast=fast),
            ):
                stack.enter_context(context)
            if fake:
                mode = stack.enter_context(faked(allow_non_fake_inputs=True))
                args, kwargs = tree_map(
                    lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf,
                    (args, kwargs),
                )
                stack.enter_context(mode)
            recorder.tape.inputs = [recorder.ref(tensor) for tensor in tensors_in((args, kwargs))]
            stack.enter_context(layers.watch())
            passing = PassedIntegers(recorder.tape, recorder.source) if sources else None
            reads = noted_reads(model, passing)
            recorder.tape.attributes = stack.enter_context(reads)
            if passing is not None and passing.wanted(model):
                stack.enter_context(passing)
            if hollow is not None:
                hollow.start((args, kwargs))
            with hollow or nullcontext(), recorder:
                output = model(*args, **kwargs)
    except Exception as error:
        how = " (it is run in evaluation mode)" if model.training else ""
        message = (
            f"the model cannot be run on the example inputs{how}: {layers.describe()} raised: "
            f"{in_words(error)}"
        )
        raise TraceError(message, layers.current, len(recorder.tape.ops)) from error
    finally:
        changed = recorder.writes.undo() + recorder.moved
    if changed and not training:
        raise TraceError(
            f"the model's forward writes into its parameter {changed[0]}, so that every run "
            "changes it; write into parameters outside of forward, or make it a buffer "
            "(register_buffer). The values of before are back"
        )
    outputs = list(named_tensors_in(output))
    recorder.tape.outputs = [recorder.operand(tensor) for _, tensor in outputs]
    recorder.tape.output_names = [name for name, _ in outputs]
    if not recorder.tape.outputs:
        raise TraceError(
            f"no tensor can be seen in what the model returns ({type(output).__name__}); return "
            "tensors, or a tuple, dict "
            "or dataclass of them"
        )
    return recorder.tape


class _Recorder(OperatorMode):
    """Writes every operator on the tape."""

    def __init__(self, model: nn.Module, layers: LayerStack) -> None:
        super().__init__()
        self.tape = Tape()
        self._layers = layers
        self.writes = ParameterWrites(model)
        self._refs = (
            WeakIdKeyDictionary()
        )  # a number stands for an object only while that object lives
        state = named_state(model)
        self._names = {id(tensor): name for name, tensor in state.items()}
        self._kept = {
            id(tensor): f"{name}.{attribute}" if name else attribute
            for name, module in model.named_modules()
            for attribute, value in vars(module).items()
            if isinstance(value, (Tensor, tuple, list))
            for tensor in tensors_in(value)
        }
        # `parameter.data` is another object over the same memory
        self._storages = {
            key: name for name, tensor in state.items() if (key := _memory(tensor)) is not None
        }
        self._homes = {id(tensor): _memory(tensor) for tensor in state.values()}
        self._own = {id(tensor): tensor.detach() for tensor in state.values()}
        self._made: dict[_Memory, Ref] = {}
        self.moved: list[str] = []

    def ref(self, tensor: Tensor) -> Ref:
        """The number of a tensor, a new one where it was never seen."""
        ref: Ref | None = self._refs.get(tensor)
        if ref is None:
            ref = self._refs[tensor] = Ref(len(self.tape.shapes))
            self.tape.shapes.append(tuple(tensor.shape))
            self.tape.dtypes.append(tensor.dtype)
        return ref

    def operand(self, leaf: Any) -> Any:
        """The number of a tensor that no operator has made so far or that is known; anything else
        as it is.
        """
        if not isinstance(leaf, Tensor):
            return leaf
        elsewhere = self._moved_to(leaf)
        if elsewhere is not None:
            return elsewhere
        known = leaf in self._refs
        ref = self.ref(leaf)
        if not known:
            name = self._names.get(id(leaf))
            memory = _memory(leaf)
            if name is None and memory is not None:
                name = self._storages.get(memory)
            if name is None:
                self.tape.constants[ref] = leaf
                if id(leaf) in self._kept:
                    self.tape.kept_tensors[ref] = self._kept[id(leaf)]
            else:
                self.tape.parameters[ref] = name
        return ref

    def made(self, tensor: Tensor) -> Ref:
        """The number of what an operator has made."""
        ref = self.ref(tensor)
        memory = _memory(tensor)
        if memory is not None:
            self._made[memory] = ref
        return ref

    def _moved_to(self, tensor: Tensor) -> Ref | None:
        """What a parameter or buffer holds by now, where the code has set its `.data` to something
        that an operator had made.
        """
        home = self._homes.get(id(tensor))
        memory = None if home is None else _memory(tensor)
        if memory is None or memory == home:
            return None
        name = self._names[id(tensor)]
        if name not in self.moved and not torch.equal(tensor.detach(), self._own[id(tensor)]):
            self.moved.append(name)
        return self._made.get(memory)

    def source(self, tensor: Tensor) -> Ref | str | None:
        """A tensor that the tape knows, or the name of a parameter; None for any other."""
        ref: Ref | None = self._refs.get(tensor)
        return self._names.get(id(tensor)) if ref is None else self.tape.parameters.get(ref, ref)

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.tape.fake:
            self.writes.watch(func, args, kwargs)
        result = func(*args, **kwargs)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        if func.namespace != "prim" and any(isinstance(item, Tensor) for item in outputs):
            read, read_by_name = with_leaves((args, kwargs), self.operand)
            refs = tuple(self.made(item) if isinstance(item, Tensor) else None for item in outputs)
            self.tape.ops.append(Op(func, read, read_by_name, refs, self._layers.current))
            self.tape.lines.append(calling_line())
            self.tape.by_value |= _size_by_value(func, args)
        elif func.namespace != "prim" and isinstance(result, (bool, int, float)):
            self.tape.by_value = True
            self.tape.answers.setdefault(calling_line(), []).append(result)
        return result


_Memory = tuple[int, int, tuple[int, ...]]  # storage, offset, shape


def _memory(tensor: Tensor) -> _Memory | None:
    """Where the numbers of a tensor lie, and in what form; None where that cannot be said."""
    if tensor.layout != torch.strided:
        return None
    storage: int = tensor.untyped_storage()._cdata
    return storage, int(tensor.storage_offset()), tuple(tensor.shape)


def _size_by_value(func: OpOverload, args: tuple[Any, ...]) -> bool:
    """Whether the size of what an operator gives depends on values: a selection by mask, boxes that
    are left over.
    """
    if func.overloadpacket is torch.ops.aten.index:  # torch marks it for its masks alone
        return any(
            isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8) for item in args[1]
        )
    return torch.Tag.dynamic_output_shape in func.tags
