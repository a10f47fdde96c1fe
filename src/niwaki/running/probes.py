"""Other inputs and made-up weights: values that hide nothing, and inputs that run otherwise than
the example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from niwaki.core.errors import TraceError
from niwaki.running.duplicates import duplicate
from niwaki.running.hollow import HollowRun
from niwaki.running.inputs import Inputs, batch_size, batched, copied, described, made_up
from niwaki.running.replay import restated
from niwaki.running.steering import Steered, Turn, turns_of
from niwaki.running.tape import Tape, tensors_in

MANY = 64  # samples, so that every branch on values is likely to be taken by some
FEW = 2  # sizes that are made longer and shorter, the largest first
SMALL = 1 << 17  # entries of an input: so many are run at next to no cost
LITTLE = 1 << 12  # entries of inputs of which more sizes are tried
TURNS = 12  # answers that are changed at most, one by one
HEAVY = 1 << 22  # numbers that a run hands from operator to operator, from which it costs a while
STEP = 32  # sizes that most networks take are multiples of it
DRAWN = 262139  # numbers of one tensor that are drawn: a prime
SHAKEN = 4  # units in the last place
LOUD = (1.0, 10.0, 1000.0)  # times the usual values, sample by sample


@dataclass(frozen=True)
class Variant:
    """Inputs that a model may take beside its example.

    Attributes:
        words: what they are, for a reader.
        of: what is varied; of variants with the same word the first that the model takes counts.
        training: whether the model is run in training mode.
        turns: lines of the model's code that are given another value than the tensor holds.
    """

    words: str
    of: str
    inputs: Inputs
    training: bool = False
    turns: Mapping[str, Turn] = field(default_factory=dict)

    @property
    def steered(self) -> AbstractContextManager[Any]:
        """What a run of this variant happens in."""
        return Steered(self.turns) if self.turns else nullcontext()


def variants(inputs: Inputs, tape: Tape) -> Iterator[Variant]:
    """Another batch with other and louder values, sizes longer and shorter, and training mode.

    Args:
        tape: of the example's run; where its path depends on values, other values are tried alone
            too, and every line that asked for one is given another answer.

    Worked example, for images (2, 3, 32, 32): a batch of 7; 40 in the place of both 32, else 64;
    16, else 31; and the example in training. Of small inputs 40 and 64, 16 and 31 are all tried.
    """
    if any(tensor.layout != torch.strided for tensor in tensors_in(inputs)):
        yield Variant("training mode", "training", inputs, training=True)
        return  # sparse inputs are of one size with what they are the neighbours of
    size = batch_size(inputs)
    more = _more(inputs, size)
    other = louder(batched(inputs, more))
    yield Variant(f"a batch of {more}", "batch", other)
    if tape.by_value:
        yield Variant("negated values", "negated", negated(inputs))
        for seed in (3, 4):
            many = batched(inputs, MANY)
            yield Variant(f"{MANY} samples of other values", f"values {seed}", louder(many, seed))
        for turns in islice(turns_of(tape.answers), TURNS):
            (line, turn), *_ = turns.items()
            words = f"another answer at {line.rpartition('/')[2]}"
            yield Variant(words, f"{turn} at {line}", inputs, turns=turns)
    small = sum(tensor.numel() for tensor in tensors_in(inputs)) <= LITTLE
    for old in _sizes(inputs)[:FEW]:
        for new in (old + max(1, old // 4), 2 * old):
            longer = resized(inputs, old, new)
            kind = f"longer {old} by {new - old}" if small else f"longer {old}"
            yield Variant(f"{new} in the place of {old}", kind, longer)
        for new in dict.fromkeys((old // 2, old - 1)):
            if new >= 1:
                shorter = resized(inputs, old, new)
                kind = f"shorter {old} by {old - new}" if small else f"shorter {old}"
                yield Variant(f"{new} in the place of {old}", kind, shorter)
    yield Variant("training mode", "training", other, training=True)
    yield Variant("training mode", "training", inputs, training=True)


@dataclass(frozen=True, eq=False)
class Small:
    """The example made smaller, as far as the model takes it along the same operators: what is
    proved of values on several inputs costs a tenth on these.

    Attributes:
        sizes: of axes in the example → those in its place.
        inputs: the example with these sizes.
        tape: its operators, with the sizes that they are given.
    """

    sizes: Mapping[int, int]
    inputs: Inputs
    tape: Tape

    def like(self, variant: Variant, example: Inputs) -> Inputs | None:
        """Smaller inputs that show the same as a variant's; None where there are none.

        Another batch and training: as many samples, of small sizes. A longer size: the first axis
        that is longer as it is, the others small. A shorter one: small.

        Worked example, of images (1, 3, 224, 224) which are small at 64: (3, 3, 224, 224) becomes
        (3, 3, 64, 64), and (1, 3, 280, 280) becomes (1, 3, 280, 64).
        """
        kind = variant.of.split()
        if kind[0] in ("batch", "training"):
            size = batch_size(variant.inputs)
            few = self.inputs if size == batch_size(self.inputs) else batched(self.inputs, size)
            return louder(few)
        if kind[0] == "shorter":
            return self.inputs
        if kind[0] == "longer":
            return thin(variant.inputs, example, self.sizes)
        return None


def is_heavy(tape: Tape) -> bool:
    """Whether a run costs more by its numbers than by its calls, and hangs on none of them."""
    return not tape.by_value and sum(map(math.prod, tape.shapes)) > HEAVY


def small(model: nn.Module, inputs: Inputs, tape: Tape) -> Small | None:
    """The smallest of some sizes that the model takes along the same operators: a fourth, or half,
    of all sizes or of the largest alone.
    """
    if any(tensor.layout != torch.strided for tensor in tensors_in(inputs)):
        return None
    large = [size for size in _sizes(inputs) if size >= 2 * STEP]
    for olds in (large, large[:1]) if len(large) > 1 else (large,):
        for part in (4, 2):
            sizes = {old: STEP * -(-old // (part * STEP)) for old in olds}
            if not any(new < old for old, new in sizes.items()):
                continue
            fewer = relaid(inputs, sizes)
            with suppress(TraceError):
                return Small(sizes, fewer, restated(model, tape, fewer, HollowRun()))
    return None


def thin(inputs: Inputs, example: Inputs, sizes: Mapping[int, int]) -> Inputs | None:
    """Inputs that are longer than the example along some axes, small along all but the first of
    these; None where there is no other axis.
    """
    changed = False

    def change(leaf: Any, like: Any) -> Any:
        nonlocal changed
        if not isinstance(leaf, Tensor) or not isinstance(like, Tensor):
            return leaf
        longer = [axis for axis in range(1, leaf.ndim) if leaf.shape[axis] > like.shape[axis]]
        for axis in range(1, leaf.ndim):
            new = sizes.get(like.shape[axis])
            if new is not None and axis not in longer[:1]:
                leaf = leaf.narrow(axis, 0, new)
                changed = changed or bool(longer)
        return leaf.contiguous()

    fewer: Inputs = tree_map(change, inputs, example)
    return fewer if changed else None


def louder(inputs: Inputs, seed: int = 2) -> Inputs:
    """Noise of the kind of the inputs, of which some samples are far larger than others."""
    leaves, form = tree_flatten(inputs)
    noise = tree_leaves(made_up(described(inputs), seed=seed))  # in tuples where there were lists

    def scaled(leaf: Any, like: Any) -> Any:
        if not isinstance(leaf, Tensor) or not isinstance(like, Tensor):
            return like
        leaf = leaf.to(like.device)
        if leaf.is_floating_point() and leaf.ndim:
            for place, factor in enumerate(LOUD):
                leaf[place :: len(LOUD)] *= factor
        return leaf

    loud = [scaled(leaf, like) for leaf, like in zip(noise, leaves, strict=True)]
    return tree_unflatten(loud, form)  # type: ignore[no-any-return]  # the tree keeps its form


def negated(inputs: Inputs) -> Inputs:
    """The inputs with the other sign, where they are real numbers."""

    def change(leaf: Any) -> Any:
        return -leaf if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return tree_map(change, copied(inputs))  # type: ignore[no-any-return]  # the tree keeps its form


def resized(inputs: Inputs, old: int, new: int) -> Inputs:
    """The inputs with every axis of one size, but for the first, made longer or shorter: what is
    there comes over again, or only its beginning.
    """

    return relaid(inputs, {old: new})


def relaid(inputs: Inputs, sizes: Mapping[int, int]) -> Inputs:
    """The same with several sizes: old → new."""

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        for axis in range(1, leaf.ndim):
            old = leaf.shape[axis]
            if old in sizes:
                places = torch.arange(sizes[old], device=leaf.device) % old
                leaf = leaf.index_select(axis, places)
        return leaf

    return tree_map(change, copied(inputs))  # type: ignore[no-any-return]  # the tree keeps its form


def _sizes(inputs: Inputs) -> list[int]:
    """Sizes of axes that are no batch, the largest first."""
    sizes = {size for tensor in tensors_in(inputs) for size in tensor.shape[1:] if size > 1}
    return sorted(sizes, reverse=True)


def _more(inputs: Inputs, size: int) -> int:
    """How many samples another batch has: more than twice as many, as code may count them; of large
    inputs one more, as each costs a run.
    """
    entries = sum(tensor.numel() for tensor in tensors_in(inputs)) / max(1, size)
    many = 2 * size + 3
    return many if many * entries <= SMALL else max(size + 1, len(LOUD))


def with_telling_weights(model: nn.Module) -> nn.Module:
    """A copy with made-up weights of a usual size: branches that start at zero would hide a wrong
    cut behind them.
    """
    model = duplicate(model, share=True)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            if parameter.ndim > 1:
                fan_in = max(1, parameter[0].numel())
                values = _normal(parameter.shape, fan_in**-0.5, generator)
            else:
                values = torch.rand(parameter.shape, generator=generator, device="cpu") + 0.5
            parameter.data = values.to(parameter.device, parameter.dtype)
        else:
            parameter.data = parameter.data.clone()
    return model


def _normal(shape: torch.Size, size: float, generator: torch.Generator) -> Tensor:
    """Normal numbers of a size. Of more than DRAWN, those of the beginning come over again: as many
    are a prime number, rows and columns differ all the same.
    """
    count = math.prod(shape)
    drawn = torch.randn(min(count, DRAWN), generator=generator, device="cpu") * size
    if count <= DRAWN:
        return drawn.view(shape)
    values, whole = torch.empty(count, device="cpu"), count // DRAWN * DRAWN
    values[:whole].view(-1, DRAWN).copy_(drawn)
    values[whole:] = drawn[: count - whole]
    return values.view(shape)


def with_shaken_weights(model: nn.Module) -> nn.Module:
    """A copy whose weights differ by a few units in the last place: what moves far then, rounding
    alone moves.
    """
    model = duplicate(model, share=True)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter)
            step = SHAKEN * torch.finfo(parameter.dtype).eps
            parameter.data = parameter.detach() * (1 + step * noise)
    return model


def telling_inputs(inputs: Inputs) -> Inputs:
    """The inputs, with noise in the place of tensors that hold one value only."""
    generator = torch.Generator().manual_seed(0)

    def spread(leaf: Any) -> Any:
        if (
            not isinstance(leaf, Tensor)
            or not leaf.is_floating_point()
            or leaf.layout != torch.strided
            or leaf.numel() < 2
            or bool((leaf != leaf.flatten()[0]).any())
        ):
            return leaf
        return torch.randn(leaf.shape, generator=generator, device="cpu").to(
            leaf.device, leaf.dtype
        )

    return tree_map(spread, inputs)  # type: ignore[no-any-return]  # the tree keeps its form
