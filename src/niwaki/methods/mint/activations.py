"""What the units of a network do with a sample of inputs: drawn over the classes, streamed, watched
on the way.

The inputs are gone through twice: once to count them by class, then to take those that were drawn
and run the network on these alone. "The third image of class 7" means an image in whatever order
the second pass comes, so a loader that shuffles draws as fairly as one that does not. No more than
a batch of inputs is in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils._pytree import tree_map

from niwaki.core.errors import SettingError
from niwaki.graph.pairs import Site
from niwaki.methods.base.evidence import Evidence
from niwaki.running import Inputs, Op, batch_size, run

WHO = "mutual information"


@dataclass(frozen=True)
class Sampling:
    """How many inputs are drawn.

    Attributes:
        per_class: where the calibration inputs have class numbers, so many of every class, with
            replacement.
        samples: where they have none, so many of all, without replacement (all, where there are
            fewer).
    """

    per_class: int = 250
    samples: int = 2500

    def __post_init__(self) -> None:
        for name, value in (("per_class", self.per_class), ("samples", self.samples)):
            if value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}")


def observe(evidence: Evidence, sites: Sequence[Site], sampling: Sampling) -> list[Tensor]:
    """The activations at some places of the network's run, for the drawn inputs.

    Returns:
        float32 (samples, units) a site, on the CPU; row i of all sites comes from the same input.

    Raises:
        SettingError: there are no calibration inputs, or a class has none.
    """
    counts = _count(evidence)
    drawn = _draw(evidence, counts, sampling)
    total = sum(counts.values())
    by_place: dict[int, list[tuple[int, Site]]] = defaultdict(list)
    for index, site in enumerate(sites):
        by_place[site.position].append((index, site))
    rows: list[list[Tensor]] = [[] for _ in sites]
    with Progress(
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal
    ) as bar:
        task = bar.add_task("watching activations", total=total)
        for inputs, times in _chosen(evidence, drawn, lambda done: bar.update(task, advance=done)):
            _watch(evidence, inputs, times, by_place, rows)
    count = sum(len(part) for part in rows[0]) if rows else 0
    if rows and count != sum(sum(times.values()) for times in drawn.values()):
        raise SettingError(
            "calibration= gave fewer inputs the second time than the first; it must give all of "
            "them each time"
        )
    return [torch.cat(parts) for parts in rows]


Class = int | None


def _count(evidence: Evidence) -> Counter[Class]:
    """How many inputs there are of every class; of the class None where they have no class
    numbers.
    """
    counts: Counter[Class] = Counter()
    for inputs, labels in evidence.batches(WHO):
        if labels is None:
            counts[None] += batch_size(inputs)
        else:
            counts.update(labels.tolist())
    if None in counts and len(counts) > 1:
        raise SettingError(
            "some calibration batches have class numbers and some have none; give them to all or "
            "to none"
        )
    return counts


def _draw(
    evidence: Evidence, counts: Counter[Class], sampling: Sampling
) -> dict[Class, Counter[int]]:
    """Which inputs of a class are taken, by their number in it, and how many times."""
    generator = evidence.generator
    if None in counts:
        order = torch.randperm(counts[None], generator=generator)[: sampling.samples]
        return {None: Counter(order.tolist())}
    classes = _classes(evidence, counts)
    missing = [label for label in range(classes) if not counts[label]]
    if missing:
        raise SettingError(
            f"class {missing[0]} has no calibration input, and {sampling.per_class} of each of "
            f"{classes} classes are drawn; "
            "add some, or leave the class numbers out"
        )
    return {
        label: Counter(
            torch.randint(counts[label], (sampling.per_class,), generator=generator).tolist()
        )
        for label in range(classes)
    }


def _classes(evidence: Evidence, counts: Counter[Class]) -> int:
    """As many as the network tells apart; as many as were seen, where its output is not one number
    a class.
    """
    tape = evidence.graph.inference.tape
    seen = max(label for label in counts if label is not None) + 1
    shape = tape.shapes[tape.outputs[0].index]
    return max(seen, shape[1] if len(shape) == 2 and shape[1] > 1 else 0)


def _chosen(
    evidence: Evidence, drawn: dict[Class, Counter[int]], progress: Any
) -> Iterator[tuple[Inputs, Tensor]]:
    """Batches cut down to the drawn inputs, and how many times each of these was drawn."""
    passed: Counter[Class] = Counter()
    for inputs, labels in evidence.batches(WHO):
        size = batch_size(inputs)
        times = torch.zeros(size, dtype=torch.int64)
        for place, label in enumerate([None] * size if labels is None else labels.tolist()):
            times[place] = drawn[label][passed[label]] if label in drawn else 0
            passed[label] += 1
        progress(size)
        taken = times.nonzero().squeeze(1)
        if len(taken):
            yield _rows(inputs, taken, size), times[taken]


def _rows(inputs: Inputs, taken: Tensor, size: int) -> Inputs:
    """Some samples of a batch; arguments that are not one entry a sample stay as they are."""

    def pick(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == size:
            return leaf[taken.to(leaf.device)]
        return leaf

    return tree_map(pick, inputs)  # type: ignore[no-any-return]  # the tree keeps its form


def _watch(
    evidence: Evidence,
    inputs: Inputs,
    times: Tensor,
    by_place: dict[int, list[tuple[int, Site]]],
    rows: list[list[Tensor]],
) -> None:
    """Run the network on a batch and keep what the sites show."""
    samples = len(times)
    single = samples == 1  # some code runs differently for one sample: give it twice
    if single:
        inputs = _rows(inputs, torch.tensor([0, 0]), 1)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        here = by_place.get(position, ())
        seen = [(index, site, args[site.slot]) for index, site in here if site.slot is not None]
        notes = [(index, site.watch(values, samples + single)) for index, site, values in seen]
        result = op.func(*args, **kwargs)
        first = result[0] if isinstance(result, (tuple, list)) else result
        notes += [
            (index, site.watch(first, samples + single))
            for index, site in here
            if site.slot is None
        ]
        for index, values in notes:
            rows[index].append(values[:samples].repeat_interleave(times, 0))
        return result

    run(evidence.graph.model, evidence.graph.inference.tape, inputs, step)
