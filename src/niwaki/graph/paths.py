"""What a model does on other inputs than the example: in training, on larger batches, on longer and
shorter sequences, on other values.

Each variant is run against the recorded operators. Where the model calls others, that run is
recorded too, and its axes are inferred with the terms that the parameters have by then: so a layer
that only this path runs is cut along with what it reads, and channels that only this path picks by
number keep their size. What no path runs, but has a twin that is run and cut (an expert that no
token was sent to), freezes that twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from niwaki.core.errors import TraceError
from niwaki.graph.facts import Facts
from niwaki.graph.inference import Inference, Rule, infer
from niwaki.graph.reasons import Freeze, Reason
from niwaki.graph.terms import Var, freeze, leaves
from niwaki.graph.unreached import freeze_around_unreached
from niwaki.running import Inputs, Tape, named_state, plainly, record, run
from niwaki.running.hollow import HollowRun
from niwaki.running.probes import Small, Variant, is_heavy, small


@dataclass(frozen=True, eq=False)
class Probe:
    """A variant of the example that the model takes.

    Attributes:
        variant: the inputs, and whether the model is in training.
        inference: of its own operators; None where they are those of the example.
        shapes: of the outputs, where the operators of the example were seen without their numbers.
    """

    variant: Variant
    inference: Inference | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Probes:
    """All variants that the model takes.

    Attributes:
        taken: these.
        remarks: what a reader should know: what the model does not take.
        small: the example made smaller, where a run costs much; None where the model takes none.
    """

    taken: tuple[Probe, ...] = ()
    remarks: tuple[str, ...] = ()
    small: Small | None = None

    @property
    def paths(self) -> list[Inference]:
        """The inferences of other paths than the example's."""
        return [probe.inference for probe in self.taken if probe.inference is not None]


def find_probes(
    model: nn.Module,
    inputs: Inputs,
    state: Inference,
    rules: Facts[Rule],
    given: Iterable[Variant],
) -> Probes:
    """Run the model on variants of its example.

    Args:
        inputs: the example.
        state: what is known of the example's run; terms of parameters learn from other paths.
        given: the variants to try; of those of one kind the first that the model takes counts.
    """
    taken: dict[str, Probe] = {}
    tried: dict[str, str] = {}
    for variant in given:
        if variant.of in taken:
            continue
        tried[variant.of] = variant.words
        probe = _tried(model, state, rules, variant)
        if probe is not None:
            taken[variant.of] = probe
    paths = [state, *(p.inference for p in taken.values() if p.inference)]
    _freeze_twins(model, paths)
    freeze_around_unreached(model, paths)
    fewer = small(model, inputs, state.tape) if is_heavy(state.tape) else None
    return Probes(tuple(taken.values()), tuple(_remarks(tried, taken)), fewer)


def _remarks(tried: dict[str, str], taken: dict[str, Probe]) -> Iterator[str]:
    sizes = [kind for kind in tried if kind.startswith(("longer", "shorter"))]
    if sizes and not any(kind in taken for kind in sizes):
        yield "the model takes only inputs of the example's sizes, as far as was tried"
    if "batch" not in taken and "batch" in tried:
        yield "the model did not run on another batch size"


def _tried(
    model: nn.Module, state: Inference, rules: Facts[Rule], variant: Variant
) -> Probe | None:
    shapes = _alike(model, state.tape, variant) if is_heavy(state.tape) else None
    if shapes is not None:
        return Probe(variant, shapes=shapes)
    if not variant.training:
        try:
            with variant.steered:
                run(model, state.tape, variant.inputs, plainly)
        except TraceError as error:
            if not error.other_path:
                return None
        else:
            return Probe(variant)
    try:
        with variant.steered:
            tape = record(model, variant.inputs, training=variant.training)
    except TraceError:
        return None
    if variant.training and _calls(tape) == _calls(state.tape):
        return Probe(variant)
    return Probe(variant, infer(tape, rules, state))


def _alike(model: nn.Module, tape: Tape, variant: Variant) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of the outputs, where the model is seen to take the same path without its numbers;
    else None, as only a real run can tell.
    """
    try:
        if variant.training:
            other = record(model, variant.inputs, training=True, hollow=HollowRun())
            same = _calls(other) == _calls(tape)
            return tuple(other.shapes[ref.index] for ref in other.outputs) if same else None
        outputs = run(model, tape, variant.inputs, plainly, hollow=HollowRun())
    except TraceError:
        return None
    return tuple(tuple(tensor.shape) for tensor in outputs)


def _calls(tape: Tape) -> list[tuple[str, str]]:
    """Layers and operators of a run, but for what training adds to any model: dropout and the
    statistics of a batch.
    """
    calls = []
    for op in tape.ops:
        name = op.name.removeprefix("aten.")
        if "batch_norm" in name:
            calls.append((op.layer, "batch_norm"))
        elif not any(word in name for word in ("dropout", "bernoulli")) and name not in (
            "add_",
            "empty",
            "empty_like",
        ):
            calls.append((op.layer, name))
    return calls


def _freeze_twins(model: nn.Module, paths: Sequence[Inference]) -> None:
    """Freeze what has a twin that no path runs: it keeps its size, and would fail once run."""
    read = {name for path in paths for name in path.tape.parameters.values()}
    shapes = {name: tuple(tensor.shape) for name, tensor in named_state(model).items()}
    for holder, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        prefix = f"{holder}." if holder else ""
        members = {
            f"{prefix}{name}.": _tensors_of(f"{prefix}{name}.", shapes)
            for name, _ in module.named_children()
        }
        idle = [
            place
            for place, own in members.items()
            if own and not any(place + tensor in read for tensor in own)
        ]
        for place in idle:
            for twin in members.keys() - set(idle):
                if members[twin] == members[place]:
                    _freeze_tensors(paths, twin, place.removesuffix("."))


def _tensors_of(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def _freeze_tensors(paths: Sequence[Inference], prefix: str, idle: str) -> None:
    reason = Reason(Freeze.TWIN, idle)
    for path in paths:
        for name, terms in path.parameters.items():
            if name.startswith(prefix):
                for term in terms:
                    freeze(term, reason)


def freeze_elsewhere(main: Inference, paths: Sequence[Inference]) -> None:
    """Freeze channels that only other paths know: no proof on the example would reach them."""
    seen = {
        var
        for name in set(main.tape.parameters.values())
        for term in main.parameters.get(name, [])
        for var in leaves(term)
    }
    for path in paths:
        for name in set(path.tape.parameters.values()):
            for term in path.parameters.get(name, []):
                for var in leaves(term):
                    if isinstance(var, Var) and var not in seen:
                        freeze(var, Reason(Freeze.ELSEWHERE))
