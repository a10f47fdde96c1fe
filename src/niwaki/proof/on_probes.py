"""The proof on other inputs than the example: larger batches, other values, longer and shorter
inputs, training mode, and whatever the user adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor, fx, nn

from niwaki.core.errors import SurgeryError, TraceError
from niwaki.graph.paths import Probe
from niwaki.methods.base.cut import Cut
from niwaki.proof.blame import touched
from niwaki.proof.counted import Counted, counted_numbers
from niwaki.proof.lockstep import Lockstep
from niwaki.proof.outputs import run_outputs
from niwaki.proof.reference import playback, rerun_outputs
from niwaki.running import plainly, preserved_rng, restated, run, seed_all, tensors_in
from niwaki.running.compare import ROUNDINGS, tolerance, worst
from niwaki.running.hollow import HollowRun
from niwaki.running.probes import Variant, with_shaken_weights
from niwaki.running.steering import Answered


def check_probes(
    cut: Cut, pruned: nn.Module, numbers: tuple[Counted, ...] = (), *, made_up: bool = False
) -> Iterator[str]:
    """Hold the pruned network against the masked original on every variant that the model takes.

    Args:
        numbers: what the pruned model computes from the counts of channels that it has.
        made_up: both have made-up weights; then only paths of their own are looked at, and what
            leads to yet another path tells nothing.

    Yields:
        what was covered, in words.

    Raises:
        SurgeryError: they differ there, or the pruned network does not run.
    """
    # a graph of operators holds the sizes of the example
    if isinstance(pruned, fx.GraphModule) or (made_up and _holds_more_than_units(cut)):
        return
    for probe in cut.graph.probes.taken:
        if made_up and probe.inference is None:
            continue
        try:
            with probe.variant.steered:
                covered = _covered(cut, probe, pruned, numbers)
        except SurgeryError as error:
            if made_up and not error.groups:
                continue
            where = f"on {probe.variant.words} {error}"
            # operators are numbered as on the example, where the path is the example's
            there = probe.inference is None and not probe.variant.training
            position = error.position if there else None
            raise SurgeryError(where, error.layer, position, error.groups) from error
        yield covered


def _covered(cut: Cut, probe: Probe, pruned: nn.Module, numbers: tuple[Counted, ...]) -> str:
    variant, allowed = probe.variant, tolerance(cut.graph.inference.tape)
    if probe.inference is None and not _holds_more_than_units(cut):
        covered = _covered_smaller(cut, probe, pruned, numbers)
        if covered is not None:
            return covered
    if probe.inference is None or _holds_more_than_units(cut):
        expected = _expected(cut, variant, numbers)
        actual = run_outputs(pruned, variant.inputs, training=variant.training)
        if expected is None:
            return f"{variant.words} (runs)"
        gap = worst(expected, actual)
        if gap > allowed:
            return _settled(cut, probe, pruned, expected, gap, numbers)
        return variant.words
    there = replace(cut, graph=replace(cut.graph, inference=probe.inference, inputs=variant.inputs))
    return _on_path(there, probe, pruned)


def _covered_smaller(
    cut: Cut, probe: Probe, pruned: nn.Module, numbers: tuple[Counted, ...]
) -> str | None:
    """The same for less, where a run costs much: the pruned network takes the original's path on
    the variant, with results of the original's shapes, and values are held against each other on
    smaller inputs that show the same. None where only the variant itself can tell.
    """
    small, variant = cut.graph.probes.small, probe.variant
    fewer = None if small is None else small.like(variant, cut.graph.inputs)
    if small is None or fewer is None or probe.shapes is None:
        return None
    smaller = replace(variant, inputs=fewer)
    try:
        if variant.training:
            run_outputs(pruned, fewer, training=True)
            return f"{variant.words} (runs)"
        tape = cut.graph.inference.tape
        outputs = run(pruned, tape, variant.inputs, plainly, hollow=HollowRun())
        if tuple(tuple(tensor.shape) for tensor in outputs) != probe.shapes:
            return None
        expected = _expected(cut, smaller, numbers)
        if expected is None or worst(expected, run_outputs(pruned, fewer)) > tolerance(small.tape):
            return None
    except (SurgeryError, TraceError):
        return None
    shapes = ", ".join("×".join(map(str, tensor.shape)) for tensor in tensors_in(fewer))
    return f"{variant.words} (values at {shapes})"


def _settled(
    cut: Cut,
    probe: Probe,
    pruned: nn.Module,
    expected: list[Tensor],
    gap: float,
    numbers: tuple[Counted, ...],
) -> str:
    """What is said of a difference that rounding explains: the masked original, its weights shaken
    by a few units in the last place, moves as far (an inverse that is iterated, a large power).

    Raises:
        SurgeryError: it does not.
    """
    model = with_shaken_weights(cut.graph.model)
    shaken = _expected(replace(cut, graph=replace(cut.graph, model=model)), probe.variant, numbers)
    moved = 0.0 if shaken is None else worst(expected, shaken)
    if not gap <= ROUNDINGS * moved < float("inf"):
        layer, position = _parting(cut, probe.variant, pruned, numbers)
        raise SurgeryError(
            f"the pruned model differs from the masked original by {gap:.1e}", layer, position
        )
    return f"{probe.variant.words} (to {gap:.0e}: rounding alone moves it by {moved:.0e})"


def _parting(
    cut: Cut, variant: Variant, pruned: nn.Module, numbers: tuple[Counted, ...]
) -> tuple[str | None, int | None]:
    """The first operator that gives another value on inputs of other sizes, and its layer; None
    where that cannot be told.
    """
    graph = cut.graph
    try:
        tape = restated(graph.model, graph.inference.tape, variant.inputs)
        inference = replace(graph.inference, tape=tape)
        there = replace(cut, graph=replace(graph, inference=inference, inputs=variant.inputs))
        lockstep = Lockstep(there, playback(there, variant.inputs), numbers)
        run_outputs(pruned, variant.inputs, watch=lockstep)
    except (TraceError, SurgeryError, RuntimeError, IndexError, ValueError):
        return None, None
    return lockstep.layer, lockstep.position


def _holds_more_than_units(cut: Cut) -> bool:
    """Whether blocks or branches go too, which are known on the example's path alone."""
    return bool(cut.plan.blocks or cut.plan.branches)


def _on_path(cut: Cut, probe: Probe, pruned: nn.Module) -> str:
    """The same on another path than the example's, operator by operator."""
    variant, tape = probe.variant, cut.graph.inference.tape
    numbers = counted_numbers(cut.graph, cut.plan, pruned, training=variant.training)
    lockstep = Lockstep(cut, playback(cut, variant.inputs), numbers)
    random = tape.draws
    by_itself = _leads_here(cut, variant)
    alike = nullcontext() if by_itself else Answered(tape.answers)
    with preserved_rng(), alike:
        seed_all(0)
        try:
            actual = run_outputs(
                pruned,
                variant.inputs,
                watch=None if random else lockstep,
                training=variant.training,
            )
        except SurgeryError as error:
            cause = error.__cause__
            if (
                isinstance(cause, TraceError) and cause.other_path
            ):  # masked, it goes yet another way
                run_outputs(pruned, variant.inputs, training=variant.training)
                return f"{variant.words}, another path (runs)"
            raise SurgeryError(str(error), error.layer, groups=_groups(cut, lockstep)) from error
        if random:
            return f"{variant.words}, another path (runs)"
        try:
            expected = lockstep.outputs()
        except (RuntimeError, IndexError, ValueError):
            return f"{variant.words}, another path (runs)"  # masked, it goes yet another way
    gap = worst(expected, actual)
    if gap > tolerance(cut.graph.inference.tape):
        if not lockstep.differs and not (by_itself and _steady(cut, variant, expected)):
            run_outputs(pruned, variant.inputs, training=variant.training)
            return f"{variant.words}, another path (runs)"  # by itself it goes elsewhere
        raise SurgeryError(
            f"the pruned model differs from the masked original by {gap:.1e}; {lockstep.verdict}",
            lockstep.layer,
            groups=_groups(cut, lockstep),
        )
    return f"{variant.words}, another path"


def _steady(cut: Cut, variant: Variant, expected: list[Tensor]) -> bool:
    """Whether the masked original keeps to its path, and puts out tensors of the same sizes, if its
    weights are shaken in their last places: how many boxes are left of many that are alike hangs on
    rounding.
    """
    shaken = replace(cut.graph, model=with_shaken_weights(cut.graph.model))
    try:
        with preserved_rng():
            seed_all(0)
            outputs = rerun_outputs(
                replace(cut, graph=shaken), variant.inputs, training=variant.training
            )
    except (TraceError, RuntimeError, IndexError, ValueError):
        return False
    return [one.shape for one in outputs] == [one.shape for one in expected]


def _leads_here(cut: Cut, variant: Variant) -> bool:
    """Whether the masked original, whose values are others than the whole one's, takes this path by
    itself; else the smaller network must be given the answers of the whole one to take it.
    """
    if not cut.graph.inference.tape.answers:
        return True
    try:
        with preserved_rng():
            seed_all(0)
            rerun_outputs(cut, variant.inputs, training=variant.training)
    except (TraceError, RuntimeError, IndexError, ValueError):
        return False
    return True


def _groups(cut: Cut, lockstep: Lockstep) -> tuple[str, ...]:
    """Groups at the operator where the two part."""
    position = lockstep.position
    if position is None:
        position = lockstep.reached
    return tuple(touched(cut.graph, {position} if position < lockstep.length else set()))


def _expected(cut: Cut, variant: Variant, numbers: tuple[Counted, ...]) -> list[Tensor] | None:
    """What the masked original puts out; None where chance, or the statistics of a batch, would
    make two runs differ.
    """
    if variant.training or cut.plan.blocks or cut.graph.inference.tape.draws:
        return None
    with preserved_rng():
        seed_all(0)
        try:
            return rerun_outputs(cut, variant.inputs, numbers)
        except (TraceError, RuntimeError, IndexError, ValueError):
            return None  # masked, it goes another way than whole
