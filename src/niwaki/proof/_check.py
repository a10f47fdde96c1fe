"""Never hand back a network that was not checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from niwaki.core.errors import SurgeryError, TraceError
from niwaki.methods.base.cut import Cut
from niwaki.proof.counted import Counted, counted_numbers
from niwaki.proof.lockstep import Lockstep
from niwaki.proof.masked_weights import masked_copy
from niwaki.proof.on_probes import check_probes
from niwaki.proof.outputs import run_outputs
from niwaki.proof.reference import playback, reference_outputs, rerun_outputs
from niwaki.proof.shapes import first_misshapen
from niwaki.running import Inputs, duplicate, preserved_rng, seed_all, tensors_in
from niwaki.running.compare import ROUNDINGS, tolerance, worst
from niwaki.running.computed import computed_weights, with_plain_weights
from niwaki.running.probes import telling_inputs, with_shaken_weights, with_telling_weights
from niwaki.surgery import fill

MADE_UP = 10  # made-up weights are no trained ones: sums of them round more


@dataclass(frozen=True)
class Proof:
    """What was shown of a pruned network.

    Attributes:
        difference: the largest of an output, as a share of its local scale
            (`niwaki.running.compare`).
        covers: on what both were run.
        remarks: what a reader should know of it.
        in_step: whether both called the same operators one by one, on the example inputs.
    """

    difference: float
    covers: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())
    in_step: bool = False

    def __str__(self) -> str:
        return f"equal to the masked original to {self.difference:.1e} on " + "; ".join(self.covers)


def check(cut: Cut, pruned: nn.Module) -> Proof:
    """Prove that the pruned model computes what the full-size one computes with the same units
    masked and mixed.

    Both are run in evaluation mode on the example inputs that the graph was traced on (on random
    ones of the same shapes where an example is constant, as zeros would hide a wrong cut), with the
    same random state; and once more with made-up weights on both sides, where a branch that is near
    zero counts as much as any other. Values are held against each other at every operator that both
    call, and at the outputs.

    Raises:
        SurgeryError: they differ; the message names the first layer that does.
    """
    if any(tensor.device.type == "meta" for tensor in cut.graph.state.values()):
        raise SurgeryError(
            "a model on the meta device has no values to check; move it to a device with its "
            "weights first"
        )
    if cut.graph.computed and not isinstance(pruned, fx.GraphModule):
        pruned = with_plain_weights(pruned, computed_weights(pruned))
    inputs = telling_inputs(cut.graph.inputs)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(inputs))
    numbers = () if _runs_apart(cut) else counted_numbers(cut.graph, cut.plan, pruned)
    compared = _compared(cut, pruned, inputs, numbers)
    assert compared is not None  # None is of made-up weights alone
    covers, remarks = [f"the example inputs {shapes}"], []
    if _vacuous(compared.outputs, inputs):
        remarks.append("the output does not change with the input, so that it shows little")
    telling = replace(cut, graph=replace(cut.graph, model=with_telling_weights(cut.graph.model)))
    refilled = duplicate(pruned, share=True)
    fill(refilled, telling)
    if _compared(*_on_small(telling, refilled, inputs), numbers, made_up=True) is not None:
        covers.append("made-up weights")
    tuple(check_probes(telling, refilled, made_up=True))
    covers += check_probes(cut, pruned, numbers)
    remarks += _of_counts(tuple(n for n in numbers if n.position not in cut.settled))
    remarks += cut.graph.probes.remarks
    return Proof(compared.gap, tuple(covers), tuple(remarks), compared.in_step)


def _on_small(cut: Cut, pruned: nn.Module, inputs: Inputs) -> tuple[Cut, nn.Module, Inputs]:
    """The same, with the example made smaller where a run costs much: which values made-up weights
    see does not matter, as long as they go along the same operators.
    """
    small = cut.graph.probes.small
    if small is None or isinstance(pruned, fx.GraphModule):
        return cut, pruned, inputs
    there = replace(
        cut.graph,
        inputs=small.inputs,
        inference=replace(cut.graph.inference, tape=small.tape),
    )
    return replace(cut, graph=there), pruned, telling_inputs(small.inputs)


@dataclass(frozen=True, eq=False)
class _Compared:
    """One comparison that held: the largest difference of an output, and what the pruned network
    put out.
    """

    gap: float
    outputs: list[Tensor]
    in_step: bool


def _compared(
    cut: Cut,
    pruned: nn.Module,
    inputs: Inputs,
    numbers: tuple[Counted, ...],
    *,
    made_up: bool = False,
) -> _Compared | None:
    """The largest difference of an output; raises where it is too large.

    None where made-up weights tell nothing: they overflow, or lead to another path.
    """
    apart = _runs_apart(cut)
    lockstep = Lockstep(cut, playback(cut, inputs), numbers)
    with preserved_rng():
        seed_all(0)
        try:
            expected = _alone(cut, inputs, made_up) if apart else None
        except (TraceError, RuntimeError, IndexError, ValueError) as error:
            if made_up:
                return None
            raise SurgeryError(f"the masked original cannot be run: {error}") from error
    try:
        actual = run_outputs(pruned, inputs, watch=None if apart else lockstep)
    except SurgeryError as error:
        raise _at_the_cause(cut, pruned, inputs, error) from error
    if expected is None:
        expected = _finished(lockstep, cut, made_up)
        if expected is None:
            return None
    _refuse_nothing(expected, made_up)
    if len(expected) != len(actual):
        raise SurgeryError(
            f"the pruned model returns {len(actual)} tensors, the original {len(expected)}"
        )
    if made_up and not all(bool(tensor.isfinite().all()) for tensor in expected):
        return None
    gap = worst(expected, actual)
    allowed = (MADE_UP if made_up else 1) * tolerance(cut.graph.inference.tape)
    if made_up and apart and gap > allowed and _rounding_moves(cut, inputs, expected, gap):
        return None
    if gap > allowed or (
        lockstep.differs and not made_up and not isinstance(pruned, fx.GraphModule)
    ):
        _refuse(lockstep, gap, gap > allowed)
    return _Compared(gap, actual, not apart and lockstep.verdict is None)


def _of_counts(numbers: tuple[Counted, ...]) -> list[str]:
    """That the code computes numbers from counts of channels, so that the cut is no plain mask."""
    if not numbers:
        return []
    listed = "; ".join(str(number) for number in numbers[:3]) + "; …" * (len(numbers) > 3)
    return [
        "the model's code computes numbers from its counts of channels, so that this cut changes "
        f"more than a mask would: {listed}"
    ]


def _at_the_cause(cut: Cut, pruned: nn.Module, inputs: Inputs, error: SurgeryError) -> SurgeryError:
    """The same error at the first operator that gives a wrong size, where that came before."""
    place = first_misshapen(cut.graph, cut.plan, pruned, inputs)
    if place is None or error.position is None or place >= error.position:
        return error
    return SurgeryError(str(error), cut.graph.inference.tape.ops[place].layer, place)


def _runs_apart(cut: Cut) -> bool:
    """Whether the two cannot go in step: the path hangs on values, or both would draw from the one
    source of chance.
    """
    tape = cut.graph.inference.tape
    return tape.by_value or tape.draws


def _alone(cut: Cut, inputs: Inputs, made_up: bool) -> list[Tensor]:
    """What the masked original puts out, run by itself."""
    if not cut.graph.inference.tape.by_value:
        return reference_outputs(cut, inputs)
    if cut.plan.blocks:
        raise SurgeryError("blocks of a network whose path depends on values cannot be checked")
    try:
        return _on_any_path(cut, inputs)
    except TraceError:
        masked = None if made_up else masked_copy(cut)
        if masked is None:
            raise
        return run_outputs(masked, inputs)


def _on_any_path(cut: Cut, inputs: Inputs) -> list[Tensor]:
    """Masked, a network may take another path than whole: one that a probe has shown, perhaps."""
    graph = cut.graph
    paths = [inference for probe in graph.probes.taken if (inference := probe.inference)]
    for inference in (graph.inference, *paths):
        try:
            return rerun_outputs(replace(cut, graph=replace(graph, inference=inference)), inputs)
        except TraceError as error:
            if not error.other_path:
                raise
            last = error
    raise last


def _rounding_moves(cut: Cut, inputs: Inputs, expected: list[Tensor], gap: float) -> bool:
    """Whether weights that differ in their last places move the masked original's outputs as far:
    made-up weights may saturate all scores of a detector, and ties are ordered by chance.
    """
    shaken = replace(cut.graph, model=with_shaken_weights(cut.graph.model))
    with preserved_rng():
        seed_all(0)
        try:
            moved = worst(expected, _alone(replace(cut, graph=shaken), inputs, made_up=True))
        except (TraceError, RuntimeError, IndexError, ValueError):
            return True  # it takes another path
    return gap <= ROUNDINGS * moved


def _finished(lockstep: Lockstep, cut: Cut, made_up: bool) -> list[Tensor] | None:
    """The masked original's outputs, once all its operators have run."""
    try:
        return lockstep.outputs()
    except (RuntimeError, IndexError, ValueError) as error:
        if made_up:
            return None
        raise SurgeryError(f"the masked original cannot be run: {error}") from error


def _refuse_nothing(expected: list[Tensor], made_up: bool) -> None:
    if not made_up and all(tensor.numel() == 0 for tensor in expected):
        raise SurgeryError(
            "on the example inputs the masked original puts out nothing (no box, no match), so "
            "that nothing can be compared; use inputs on which it finds something"
        )


def _refuse(lockstep: Lockstep, gap: float, at_output: bool) -> None:
    where = lockstep.verdict or "no single operator does"
    what = f"by {gap:.1e} of its largest output" if at_output else "inside, though its output hides"
    raise SurgeryError(
        f"the pruned model differs from the masked original {what}; {where}. "
        "Leave the layers around it out with skip=",
        lockstep.layer,
        lockstep.position,
    )


def _vacuous(outputs: list[Tensor], inputs: Inputs) -> bool:
    """Whether the outputs are the same for every sample of a batch whose samples differ."""
    plain = [t for t in tensors_in(inputs) if t.layout == torch.strided]
    given = [t for t in plain if t.ndim and len(t) > 1]
    differ = any(bool((t[1:] != t[:1]).any()) for t in given)
    alike = [_alike(t) for t in outputs if t.ndim and len(t) > 1]
    return differ and bool(alike) and all(alike)


def _alike(value: Any) -> bool:
    return bool(torch.equal(value[1:].nan_to_num(), value[:1].expand_as(value[1:]).nan_to_num()))
