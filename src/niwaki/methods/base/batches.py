"""Batches of any kind, as loaders give them: what of one is input, and what are labels.

A tensor is the input. Of a tuple or a list, the model takes as many parts as the example inputs
have, or as its forward has parameters without a default; what comes after them are labels. Of a
table, it takes what it names; `labels` and the like are labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from niwaki.core.errors import SettingError
from niwaki.core.inputs import Inputs

LABELS = ("labels", "label", "targets", "target", "y")


def separated(
    batch: Any, model: nn.Module, like: Inputs | None = None
) -> tuple[Inputs, Tensor | None]:
    """The inputs and the class numbers of a batch, on the model's device.

    Class numbers are whole numbers, one a sample; labels of any other kind are left out.

    Args:
        like: inputs that the model is known to be called with.

    Raises:
        SettingError: it cannot be told which part of it the model takes.
    """
    first = next(model.parameters(), None)
    if first is not None:
        batch = tree_map_only(Tensor, lambda tensor: tensor.to(first.device), _as_plain(batch))
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        return _of_table(batch, model)
    if isinstance(batch, (tuple, list)):
        return _of_sequence(batch, model, like)
    raise SettingError(
        f"a batch of calibration= is a {type(batch).__name__}; give tensors, tuples, lists or "
        "dicts of them"
    )


def _as_plain(batch: Any) -> Any:
    """Tables of other classes (as transformers has) as dicts."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def _of_table(batch: Mapping[str, Any], model: nn.Module) -> tuple[Inputs, Tensor | None]:
    named, open_ended = _parameters(model)
    labels = next((batch[name] for name in LABELS if name in batch), None)
    rest = {key: value for key, value in batch.items() if key not in LABELS}
    inputs = {key: value for key, value in rest.items() if key in named or open_ended}
    needed = [name for name, default in named.items() if not default and name not in LABELS]
    missing = [name for name in needed if name not in inputs]
    if missing or not inputs:
        raise SettingError(
            f"a batch of calibration= has {', '.join(map(str, batch))}, but "
            f"{type(model).__name__} takes {', '.join(needed or named) or 'nothing'}; name its "
            "parts like these"
        )
    return inputs, _class_numbers(labels, _rows(inputs.values()))


def _of_sequence(
    batch: Sequence[Any], model: nn.Module, like: Inputs | None
) -> tuple[Inputs, Tensor | None]:
    count = _taken(batch, model, like)
    if len(batch) < count or not isinstance(batch[0], (Tensor, Mapping)):
        raise SettingError(
            f"a batch of calibration= has {len(batch)} parts, but {type(model).__name__} takes "
            f"{count}; give (inputs, labels), or a dict by the names of its parameters"
        )
    if isinstance(batch[0], Mapping):
        inputs: Inputs = _of_table(batch[0], model)[0]
    else:
        inputs = batch[0] if count == 1 else tuple(batch[:count])
    labels = batch[count] if len(batch) > count else None
    return inputs, _class_numbers(labels, _rows(batch))


def _taken(batch: Sequence[Any], model: nn.Module, like: Inputs | None) -> int:
    """How many parts of a batch are inputs."""
    if isinstance(like, Tensor):
        return 1
    if isinstance(like, tuple):
        return len(like)
    named, _ = _parameters(model)
    needed = max(1, sum(not default for default in named.values()))
    if len(named) <= needed or len(batch) <= needed:
        return needed
    # parameters that may be left out are given too, unless what would go there are class numbers
    possible = min(len(named), len(batch))
    last = _class_numbers(batch[possible - 1], _rows(batch)) is not None
    return max(needed, possible - 1 if last else possible)


def _class_numbers(labels: Any, rows: int | None) -> Tensor | None:
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.ndim == 1
    return labels if whole and len(labels) == rows else None


def _rows(parts: Any) -> int | None:
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), None)


def _parameters(model: nn.Module) -> tuple[dict[str, bool], bool]:
    """The names that forward takes, and whether each has a default; whether it takes any other."""
    kinds = inspect.Parameter
    named: dict[str, bool] = {}
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.POSITIONAL_ONLY):
            named[name] = parameter.default is not kinds.empty
        elif parameter.kind is kinds.KEYWORD_ONLY:
            named[name] = True
    every = inspect.signature(model.forward).parameters.values()
    return named, any(parameter.kind is kinds.VAR_KEYWORD for parameter in every)
