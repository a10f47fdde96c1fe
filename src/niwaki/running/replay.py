"""A tape played on real tensors, that can be stopped before any operator and gone on with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from niwaki.core.errors import TraceError
from niwaki.running.hollow import HollowRun
from niwaki.running.inputs import Inputs, as_arguments
from niwaki.running.rerun import run
from niwaki.running.tape import Op, Ref, Tape, refs_in, tensors_in, with_leaves

Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


class Playback:
    """One run of a tape's operators, each value freed after its last use.

    Attributes:
        position: the operator that comes next.
    """

    def __init__(self, tape: Tape, state: Mapping[str, Tensor], inputs: Inputs) -> None:
        """Start a run.

        Args:
            state: parameters and buffers by name, of the recorded sizes; never written to.
            inputs: of the recorded shapes.
        """
        args, kwargs = as_arguments(inputs)
        self._tape = tape
        self._values: dict[Ref, Tensor] = dict(
            zip(tape.inputs, (t.clone() for t in tensors_in((args, kwargs))), strict=True),
        )
        self._values.update({ref: state[name] for ref, name in tape.parameters.items()})
        self._values.update(tape.constants)
        for ref in written(tape) & self._values.keys():
            self._values[ref] = self._values[ref].clone()
        self._last_use = tape.last_uses
        self._wanted = set(tape.outputs)
        self.position = 0

    def fork(self) -> Playback:
        """Another run of the same inputs that stands where this one does; what either writes, the
        other does not see.
        """
        twin = copy.copy(self)
        shared = self._tape.parameters.keys() - written(self._tape)
        held = {ref: value for ref, value in self._values.items() if ref not in shared}
        twin._values = {**self._values, **_in_own_memory(held)}
        return twin

    def arguments(self, position: int | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the next operator is given, or one that comes later and whose operands are there."""
        op = self._tape.ops[self.position if position is None else position]
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
        values = self._values

        def filled(leaf: Any) -> Any:
            return values[leaf] if type(leaf) is Ref else leaf

        args, kwargs = with_leaves((op.args, op.kwargs), filled)
        return args, kwargs

    def until(self, position: int, step: Step) -> None:
        """Run the operators before `position`, each as `step` does it; it normally calls
        `op.func`.

        Raises:
            TraceError: values lead to another number of tensors than was recorded, or to places
                that there are none of.
        """
        with torch.no_grad():
            while self.position < position:
                self._run(step)

    def _run(self, step: Step) -> None:
        place, op = self.position, self._tape.ops[self.position]
        args, kwargs = self.arguments()
        try:
            result = step(place, op, args, kwargs)
        except IndexError as error:  # torch's own, of places that these values have not
            raise _other_path(op, place, str(error)) from error
        values = result if isinstance(result, (tuple, list)) else (result,)
        if len(values) != len(op.outputs):
            counts = f"{len(values)} tensors where {len(op.outputs)} were recorded"
            raise _other_path(op, place, f"it gives {counts}")
        for out, value in zip(op.outputs, values, strict=True):
            if out is not None:
                self._values[out] = value
        for used in op.values:
            if self._last_use[used] == place and used not in self._wanted:
                self._values.pop(used, None)
        self.position += 1

    @property
    def outputs(self) -> list[Tensor]:
        """The model's output tensors, once all operators have run, in the order of
        `tape.outputs`.
        """
        return [self._values[ref] for ref in self._tape.outputs]


def _other_path(op: Op, place: int, why: str) -> TraceError:
    return TraceError(
        f"on these values the model takes another path than on the example inputs, at {op.name} in "
        f"{op.layer or 'the model'}: {why}",
        op.layer,
        place,
        other_path=True,
    )


def play(tape: Tape, state: Mapping[str, Tensor], inputs: Inputs, step: Step) -> list[Tensor]:
    """Run a whole tape on real tensors of the recorded shapes; the model's output tensors."""
    playback = Playback(tape, state, inputs)
    playback.until(len(tape.ops), step)
    return playback.outputs


def _in_own_memory(values: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
    """Copies in which views of one memory are views of one copy."""
    copies: dict[int, torch.UntypedStorage] = {}
    twins: dict[Ref, Tensor] = {}
    for ref, value in values.items():
        if value.layout != torch.strided or value.is_conj() or value.is_neg():
            twins[ref] = value.clone()
            continue
        memory = value.untyped_storage()
        key = memory.data_ptr()
        own = copies[key] = copies[key] if key in copies else memory.clone()
        blank = torch.empty(0, dtype=value.dtype, device=value.device)
        twins[ref] = blank.set_(own, value.storage_offset(), value.shape, value.stride())
    return twins


def written(tape: Tape) -> set[Ref]:
    """Values in whose memory an operator writes, itself or through a view: the caller's must be
    copied before a replay.
    """
    overwritten: set[Ref] = set()
    whole: dict[Ref, Ref] = {}  # view → what it is a view of
    for op in tape.ops:
        overwritten.update(_statistics(op))
        for place, schema in enumerate(op.func._schema.arguments):
            if schema.alias_info is None:
                continue
            seen = [whole.get(ref, ref) for ref in refs_in(op.arg(place, schema.name))]
            if schema.alias_info.is_write:
                overwritten.update(seen)
            whole.update(
                {ref: seen[0] for ref in op.outputs if ref is not None and seen and ref != seen[0]}
            )
    return overwritten


def _statistics(op: Op) -> list[Ref]:
    """Running statistics that a normalisation in training writes into; torch's own schema of it
    does not say so.
    """
    names = [argument.name for argument in op.func._schema.arguments]
    given = {name: op.arg(place, name) for place, name in enumerate(names)}
    if not (given.get("training") or given.get("use_input_stats") or given.get("train")):
        return []
    return [ref for name in ("running_mean", "running_var") for ref in refs_in(given.get(name))]


def restated(
    model: nn.Module,
    tape: Tape,
    inputs: Inputs,
    hollow: HollowRun | None = None,
) -> Tape:
    """A tape with the sizes and numbers that the model's operators are given on other inputs;
    positions and values are the same.

    Args:
        hollow: run the operators without their numbers.

    Raises:
        TraceError: the model takes another path on these inputs, or raises.
    """
    ops: list[Op] = []
    shapes = list(tape.shapes)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = op.func(*args, **kwargs)
        given = tuple(_numbers(old, new) for old, new in zip(op.args, args, strict=True))
        named = {name: _numbers(old, kwargs[name]) for name, old in op.kwargs.items()}
        ops.append(replace(op, args=given, kwargs=named))
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        for ref, value in zip(op.outputs, outputs, strict=True):
            if ref is not None:
                shapes[ref.index] = tuple(value.shape)
        return result

    run(model, tape, inputs, step, hollow=hollow)
    args, kwargs = as_arguments(inputs)
    for ref, tensor in zip(tape.inputs, tensors_in((args, kwargs)), strict=True):
        shapes[ref.index] = tuple(tensor.shape)
    return replace(tape, ops=ops, shapes=shapes)


def _numbers(old: Any, new: Any) -> Any:
    """An argument as it is now, with the values that it reads named as they were."""
    if isinstance(old, Ref):
        return old
    if isinstance(old, (list, tuple)) and any(refs_in(old)):
        return type(old)(_numbers(a, b) for a, b in zip(old, new, strict=True))
    return new


def live_bytes(tape: Tape) -> int:
    """The most bytes of activations that a stopped playback holds, as if every value had memory of
    its own.
    """
    last_use = tape.last_uses
    held = {ref: _bytes(tape, ref) for ref in tape.inputs}
    most = 0
    for place, op in enumerate(tape.ops):
        held.update(
            {
                ref: _bytes(tape, ref)
                for ref in op.outputs
                if ref is not None and ref not in tape.parameters
            }
        )
        most = max(most, sum(held.values()))
        held = {ref: size for ref, size in held.items() if last_use.get(ref, -1) > place}
    return most


def _bytes(tape: Tape, ref: Ref) -> int:
    return math.prod(tape.shapes[ref.index]) * tape.dtypes[ref.index].itemsize
