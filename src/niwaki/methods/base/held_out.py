"""Inputs on which a repair is judged: a tenth of the calibration inputs that the fit does not see,
else the example inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor
from torch.utils._pytree import tree_map

from niwaki.methods.base.evidence import Batch, Calibration, Evidence
from niwaki.methods.base.examples import judged_on
from niwaki.running import Inputs, batch_size

SHARE = 10  # one input of so many is held out
FEWEST = 40  # inputs, of which some can be spared
MOST = 256  # inputs that are judged on


@dataclass(frozen=True, eq=False)
class Split:
    """Evidence for a fit, and inputs to judge it on.

    Attributes:
        evidence: without what is held out.
        held: batches of inputs.
        source: what they are, in words.
        margin: by which share an error may be larger and still count as chance.
    """

    evidence: Evidence
    held: tuple[Inputs, ...]
    source: str
    margin: float = 0.0

    @classmethod
    def of(cls, evidence: Evidence, who: str) -> Split:
        """Calibration inputs are divided within each batch, so that its kind of inputs is on both
        sides; where they are too few to spare any, they are judged on too.
        """
        if evidence.calibration is None:
            example = judged_on(evidence.graph.inputs)
            return cls(evidence, (example,), "the example inputs", batch_size(example) ** -0.5)
        whole = [inputs for inputs, _ in evidence.batches(who)]
        total = sum(batch_size(inputs) for inputs in whole)
        held = tuple(_first([part for inputs in whole for part in _parts(inputs, held=True)]))
        if total < FEWEST or not held:
            return cls(evidence, tuple(_first(whole)), "the calibration inputs")
        rest = replace(evidence, calibration=_without(evidence.calibration))
        return cls(rest, held, "held-out calibration inputs")


def _first(batches: list[Inputs]) -> Iterator[Inputs]:
    """So many batches that MOST inputs are there."""
    count = 0
    for inputs in batches:
        if count >= MOST:
            return
        count += batch_size(inputs)
        yield inputs


def _without(calibration: Calibration) -> Calibration:
    def batches() -> Iterator[Batch]:
        for inputs, labels in calibration.batches():
            size = batch_size(inputs)
            (rest,) = _parts(inputs, held=False)
            spared = labels is not None and len(labels) == size
            yield rest, labels[: size - size // SHARE] if labels is not None and spared else labels

    return Calibration(batches)


def _parts(inputs: Inputs, *, held: bool) -> Iterator[Inputs]:
    """The last tenth of a batch, or what is before it; batches of fewer are not divided."""
    size = batch_size(inputs)
    spared = size // SHARE
    rows = slice(size - spared, size) if held else slice(0, size - spared)
    if held and not spared:
        return

    def cut(leaf: object) -> object:
        fits = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size
        return leaf[rows] if fits else leaf  # type: ignore[index]  # as `fits` says

    yield tree_map(cut, inputs)
