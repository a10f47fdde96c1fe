"""How far a network still says what its original says, where there are no labels to judge it by.

agreement   share of answers whose largest entry is the original's
cosine      mean over samples of ⟨a, b⟩ / (|a| |b|), of all outputs of a sample in one vector
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from niwaki.running import Inputs, call, copied, undisturbed

PRIMARY = "agreement"
SAME = {PRIMARY: 1.0, "cosine": 1.0}  # of a network with itself


def agreement(original: nn.Module, other: nn.Module, batches: Iterable[Inputs]) -> dict[str, float]:
    """Both numbers over all batches; none where the outputs are no numbers to compare.

    Outputs of shape (batch, classes, …) are compared class by class along their second axis, those
    of three axes (batch, positions, classes) along their last.
    """
    same = answers = samples = 0
    cosine = 0.0
    for inputs in batches:
        theirs, ours = _outputs(original, inputs), _outputs(other, inputs)
        if not theirs or [a.shape for a in theirs] != [b.shape for b in ours]:
            return {}
        equal = _largest(theirs[0]) == _largest(ours[0])
        same, answers = same + int(equal.sum()), answers + equal.numel()
        alike = F.cosine_similarity(_flat(theirs), _flat(ours), dim=1)
        cosine, samples = cosine + alike.sum().item(), samples + len(alike)
    if not samples:
        return {}
    return {PRIMARY: same / max(1, answers), "cosine": cosine / samples}


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """What a network gives that is made of numbers, a row a sample."""
    with undisturbed(model):
        leaves = tree_leaves(_plain(call(model, copied(inputs))))
    numbers = [
        leaf.detach().double().cpu()
        for leaf in leaves
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim
    ]
    rows = len(numbers[0]) if numbers else 0
    return [leaf for leaf in numbers if len(leaf) == rows and leaf.numel()]


def _plain(output: object) -> object:
    """The logits of an output object of transformers, else the output."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output


def _largest(values: Tensor) -> Tensor:
    if values.ndim == 1:
        return values > 0
    return values.nan_to_num(neginf=-1e300).argmax(dim=-1 if values.ndim == 3 else 1)


def _flat(outputs: list[Tensor]) -> Tensor:
    rows = [leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in outputs]
    return torch.cat(rows, dim=1).nan_to_num(posinf=1e100, neginf=-1e100)
