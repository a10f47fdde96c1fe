"""Gradients of a network's loss with respect to its parameters, and to a factor on every unit.

The recorded operators are played back on tensors of their own, with gradients: the model is never
touched, whatever its modes, hooks, frozen parameters and stored gradients are. Networks in half
precision are played in float32.

The loss of a sample is the cross-entropy with its class number, where the calibration has them.
Without, the network is its own teacher: a class is drawn from its own answer, which is a sample of
the Kullback-Leibler divergence from what it says now (Martens and Grosse, K-FAC, ICML 2015, section
3). Where the network gives no class scores, it is a random direction of its output.

Example: with two classes, logits (0, 0) and the class number 1, the loss is log 2, and its gradient
with respect to the logits is (1/2, -1/2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from niwaki.core.errors import TraceError
from niwaki.graph import Graph, Group
from niwaki.graph.inference import Read
from niwaki.graph.offsets import reads_of
from niwaki.graph.terms import positions
from niwaki.methods.base.evidence import Evidence
from niwaki.running import (
    Inputs,
    Op,
    Playback,
    Tape,
    batch_size,
    batched,
    plainly,
    preserved_rng,
    restated,
)

HALVES = (torch.float16, torch.bfloat16)
Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Replay:
    """One batch, ready to be played.

    Attributes:
        state: parameters (with gradients) and buffers by name.
        labels: class numbers, where there are some.
        size: samples.
    """

    tape: Tape
    state: Mapping[str, Tensor]
    inputs: Inputs
    labels: Tensor | None
    size: int

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Gradients are right although operators write into what earlier ones have read."""
        with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            yield

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those that a gradient can be taken with respect to."""
        return {name: tensor for name, tensor in self.state.items() if tensor.requires_grad}

    def outputs(self, step: Step | None = None) -> list[Tensor]:
        """The network's outputs, with gradients; `step` runs each operator, in its own way.

        To be called, and gradients to be taken, inside `tracking`.
        """
        doing = step or plainly

        def tracked(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            with torch.enable_grad():
                return doing(position, op, *tree_map(_widened, (args, kwargs)))

        with torch.enable_grad():
            playback = Playback(self.tape, self.state, self.inputs)
            playback.until(len(self.tape.ops), tracked)
        return playback.outputs


def replays(evidence: Evidence, who: str, batches: int | None = None) -> Iterator[Replay]:
    """The calibration's batches, at most so many of them.

    Batches on which the model takes another path than on the example are left out, and said. A
    batch of one sample comes as that sample twice where the example has several: torch runs other
    operators on one.

    Raises:
        SettingError: there are no calibration inputs.
        TraceError: the model takes another path on all of them.
    """
    graph = evidence.graph
    learned = dict(graph.model.named_parameters())
    state = {
        name: _widened(tensor.detach()).requires_grad_(
            name in learned and tensor.is_floating_point()
        )
        for name, tensor in evidence.state.items()
    }
    elsewhere: list[TraceError] = []
    played, several = 0, batch_size(graph.inputs) > 1
    for inputs, labels in evidence.batches(who):
        if several and batch_size(inputs) == 1:
            inputs, labels = _twice(inputs, labels)
        if batches is not None and played >= batches:
            break
        try:
            with preserved_rng():
                tape = restated(graph.model, graph.inference.tape, inputs)
        except TraceError as error:
            if not error.other_path:
                raise
            elsewhere.append(error)
            continue
        played += 1
        constants = {ref: _widened(value) for ref, value in tape.constants.items()}
        wide: Inputs = tree_map(_widened, inputs)
        yield Replay(replace(tape, constants=constants), state, wide, labels, batch_size(inputs))
    if elsewhere and not played:
        raise elsewhere[0]
    if elsewhere:
        evidence.say(
            f"{who}: the model takes another path on {len(elsewhere)} of the calibration batches "
            "than on the example; they are left out"
        )


def _twice(inputs: Inputs, labels: Tensor | None) -> tuple[Inputs, Tensor | None]:
    return batched(inputs, 2), None if labels is None else labels.repeat_interleave(2, 0)


def losses(replay: Replay, outputs: list[Tensor], generator: torch.Generator) -> Tensor:
    """The loss of every sample (n,).

    Raises:
        RuntimeError: no output has a gradient.
    """
    usable = [
        (name, output)
        for name, output in zip(replay.tape.output_names, outputs, strict=True)
        if output.requires_grad
    ]
    if not usable:
        raise RuntimeError("none of its outputs has a derivative")
    named = [output for name, output in usable if "logits" in name.split(".")]
    output = (named or [output for _, output in usable])[0]
    if replay.labels is not None and (scores := _classes_second(output, replay.labels)) is not None:
        errors = F.cross_entropy(scores, replay.labels.to(scores.device), reduction="none")
        return errors.reshape(len(errors), -1).mean(1)
    if output.ndim == 2 and output.shape[1] > 1:
        chances = F.softmax(output.detach().cpu(), 1)
        drawn = torch.multinomial(chances, 1, generator=generator)[:, 0].to(output.device)
        return F.cross_entropy(output, drawn, reduction="none")
    way = torch.randn(output.shape, generator=generator, device="cpu").to(output)
    return (output * way).reshape(len(output) if output.ndim else 1, -1).sum(1)


def _classes_second(output: Tensor, labels: Tensor) -> Tensor | None:
    """Class scores with the classes on axis 1, as torch's cross-entropy takes them, where the
    labels fit.
    """
    if labels.is_floating_point() or output.ndim < 2:
        return None
    if labels.shape == output.shape[:1] + output.shape[2:]:
        return output
    return output.movedim(-1, 1) if labels.shape == output.shape[:-1] else None


def gradients(goal: Tensor, leaves: Mapping[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """The goal's gradient with respect to each leaf; zero where it does not depend on one."""
    if not leaves:
        return {}
    slopes = torch.autograd.grad(goal, list(leaves.values()), allow_unused=True, **options)
    return {
        name: torch.zeros_like(leaf) if slope is None else slope
        for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)
    }


def unit_sums(group: Group, table: Mapping[str, Tensor]) -> Tensor:
    """What a table of tensors (by the parameters' names) sums up to over all that computes a unit:
    (width,), float64.
    """
    rows = [rows.double().sum(1).cpu() for rows in group.blocks(table)]
    return torch.stack(rows).sum(0)


def inserted(graph: Graph, names: list[str]) -> dict[int, list[tuple[str, Read, Tensor]]]:
    """Operator → groups that it sums over, with the read and the unit of every index of its
    axis.
    """
    places: dict[int, list[tuple[str, Read, Tensor]]] = {}
    for name in names:
        for read in reads_of(graph, name):
            if not read.statistics:
                units = positions(read.whole, graph.variables[name])
                places.setdefault(read.position, []).append((name, read, units))
    return places


def spread(leaf: Tensor, operand: Tensor, read: Read, units: Tensor, fill: float) -> Tensor:
    """A number a sample and unit (n, width), as a tensor that can be combined with what is
    read.
    """
    width, leaf = leaf.shape[1], leaf.to(operand.device)
    column = torch.cat([leaf, leaf.new_full((len(leaf), 1), fill)], 1)
    values = column[:, torch.where(units >= 0, units, width).to(leaf.device)]
    there, rest = divmod(operand.shape[0], len(values)) if read.axis else (1, 1)
    if rest or not there:  # the first axis is not that of the samples
        values, there = values.mean(0, keepdim=True), 1
    shape = [1] * operand.ndim
    shape[read.axis] = values.shape[1]
    if len(values) > 1:
        values = values.repeat_interleave(there, 0)
        shape[0] = len(values)
    return values.reshape(shape)


def _widened(leaf: Any) -> Any:
    """Half precision as float32: tensors, and the types among an operator's arguments."""
    if isinstance(leaf, Tensor):
        return leaf.float() if leaf.dtype in HALVES else leaf
    return torch.float32 if isinstance(leaf, torch.dtype) and leaf in HALVES else leaf
