"""Networks of the coverage table once more, with sizes that coincide: classes, widths, vocabulary,
places and the side of the image are one number, so that an integer says nothing of what it counts.

A tool that follows integers by their value is misled here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import coverage_models as models
import torch
from coverage_models import Case, Inputs
from torch import Tensor, nn
from torch.utils._pytree import tree_map

SAME = 64  # also the side of most images
# sizes of the table → sizes that coincide; heads of 4 are then 16 wide, which is a patch, too
COINCIDING = {96: 64, 152: 64, 168: 64, 211: 64, 40: 64, 11: 64, 20: 16, 28: 16, 36: 16, 56: 64}
EVERY = 1  # network of timm in so many


def coinciding() -> Iterator[Case]:
    """Networks of timm, and all tiny configurations of transformers."""
    for place, case in enumerate(models.from_timm()):
        if place % EVERY == 0:
            yield replace(case, name=f"same/{case.name}", build=partial(_timm, case.build))
    tables = (
        (models.TEXT_CLASSIFIERS, "ForSequenceClassification", models._text, ()),
        (models.DECODERS, "ForCausalLM", models._text, ()),
        (models.TRANSLATORS, "ForConditionalGeneration", models._two_texts, ("logits",)),
        (models.IMAGE_CLASSIFIERS, "ForImageClassification", models._pixels, ()),
    )
    for table, head, inputs, output in tables:
        for name, told in table.items():
            last = models._HEADS.get(name, head) if head == "ForCausalLM" else head
            case = models._hugging(name, last, coincide(told), inputs, *output)
            yield replace(case, name=f"same/{case.name}", inputs=partial(_within, inputs))


def coincide(told: Any) -> Any:
    """A configuration with its sizes replaced, at any depth."""
    if isinstance(told, dict):
        return {key: coincide(value) for key, value in told.items()}
    if type(told) is int:
        return COINCIDING.get(told, told)
    return told


def _timm(build: partial[nn.Module]) -> nn.Module:
    import timm

    name, told = build.args
    return timm.create_model(name, num_classes=SAME, **told)


def _within(inputs: Any, batch: int) -> Inputs:
    """The same inputs, with token numbers of the smaller vocabulary."""

    def change(leaf: Any) -> Any:
        whole = isinstance(leaf, Tensor) and leaf.dtype is torch.int64
        return leaf % SAME if whole else leaf

    return tree_map(change, inputs(batch))  # type: ignore[no-any-return]  # the tree keeps its form
