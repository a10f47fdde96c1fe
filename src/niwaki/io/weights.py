"""Weights from .safetensors and torch files, read without running code and loaded all or not at
all.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from niwaki.core.errors import CheckpointError
from niwaki.models.renaming import Renamed, renamed

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
)  # keys under which training scripts put the weights
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
COUNTER = "num_batches_tracked"  # BatchNorm's; files written before torch 0.4.1 do not have it
LISTED = 5  # names that an error spells out, of each kind


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU.

    Reads .safetensors, and everything else as a torch file. A wrapping {"state_dict": …} (also
    "model_state_dict" and "model") is opened; a "module." or "_orig_mod." before every name is
    dropped.

    Raises:
        CheckpointError: the file is missing, empty, damaged, would run code, or holds no dict of
            tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; give the path of a .safetensors or torch weights file in it"
        )
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give the path of a .safetensors or torch weights file"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; copy or download it again")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _strip_prefixes(_tensors(content, path))


def load_weights(
    model: nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor]
) -> Renamed | None:
    """Copy `weights` (a file, or tensors by name) into `model`, cast to its dtypes and devices.

    A BatchNorm's `num_batches_tracked` may be missing, and so may a name whose tensor the model
    shares with another. A torch file of another class, whose layers have the model's shapes one
    after the other, is taken by that order (`niwaki.models.renaming`).

    Returns:
        which layers had other names, where they did (a warning says so too); else None.

    Raises:
        CheckpointError: a name is missing or unexpected, a shape does not fit, a kind of number
            differs, or a weight is not finite; the model is untouched. Also whatever `read_weights`
            raises.
    """
    if isinstance(weights, Mapping):
        source, state = "the given weights", dict(weights)
    else:
        source, state = str(weights), read_weights(weights)
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    problems, other_names = _misfits(own, state), None
    if problems:
        refused = f"{type(model).__name__} cannot take {source}: {'; '.join(problems)}"
        other_names = _by_order(own, state, source, refused)
        state = other_names.state
    # everything is converted before anything is copied, so that nothing can fail half-way
    ready = {
        name: tensor.detach().to(own[name].device, own[name].dtype)
        for name, tensor in state.items()
    }
    bad = [
        name
        for name, tensor in ready.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite weights in {_capped(bad)}; the file is damaged, or "
            "training diverged"
        )
    _refuse_torn_ties(own, ready, source)
    model.load_state_dict(ready, strict=False)
    if other_names is not None:
        warnings.warn(f"{source}: {other_names}; look at its accuracy", stacklevel=2)
    return other_names


def _by_order(
    own: Mapping[str, Tensor], state: dict[str, Tensor], source: str, refused: str
) -> Renamed:
    """The weights under the model's names, where order and shapes leave no doubt.

    Raises:
        CheckpointError: they do; the names that do not fit are said first.
    """
    if source.endswith(".safetensors"):  # such a file does not keep the order of its tensors
        raise CheckpointError(refused)
    try:
        matched = renamed(own, state)
    except CheckpointError as error:
        raise CheckpointError(f"{refused} (nor by shape and order: {error})") from error
    if problems := _misfits(own, matched.state):
        raise CheckpointError(f"{refused} (nor by shape and order: {'; '.join(problems)})")
    return matched


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); copy or download it again"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} is refused: to load it, {wanted[1]} would have to run, and niwaki runs no "
                "code from files; where you trust its author, load it in plain torch and save "
                "model.state_dict() alone"
            ) from error
        raise CheckpointError(
            f"{path} is damaged, or a pickle that torch.save did not write; save "
            "model.state_dict() with torch.save"
        ) from error
    except (
        Exception
    ) as error:  # torch passes on whatever its reader stumbles over in a damaged file
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript program; save its state_dict() alone"
            ) from error
        # torch's own messages go on for lines, and advise to switch the protection off
        reason = (
            str(error).partition(". ")[0].partition("\n")[0]
            if isinstance(error, RuntimeError)
            else "unreadable"
        )
        raise CheckpointError(
            f"{path} is damaged, or no torch file ({reason}); copy or download it again"
        ) from error


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        kind = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {kind}, not tensors by name; save model.state_dict()")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} holds a {type(value).__name__} named {name!r} among its tensors; save "
                "model.state_dict() alone"
            )
    return dict(content)


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:  # either may be around the other
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being the weights of a model whose tensors are `own`, in words."""
    present = {id(own[name]) for name in state if name in own}
    missing = [
        name
        for name in own
        if name not in state and name.rpartition(".")[2] != COUNTER and id(own[name]) not in present
    ]
    unexpected = [name for name in state if name not in own]
    both = [name for name in state if name in own]
    shapes = [
        f"{name} (file {tuple(state[name].shape)}, model {tuple(own[name].shape)})"
        for name in both
        if state[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} (file {state[name].dtype}, model {own[name].dtype})"
        for name in both
        if state[name].is_floating_point() != own[name].is_floating_point()
    ]
    lists = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another type": kinds,
    }
    return [f"{len(names)} {what}: {_capped(names)}" for what, names in lists.items() if names]


def _refuse_torn_ties(own: Mapping[str, Tensor], ready: Mapping[str, Tensor], source: str) -> None:
    """Names that share one tensor in the model must not have different values in the file: the last
    would win.
    """
    first: dict[int, str] = {}
    for name, tensor in ready.items():
        twin = first.setdefault(id(own[name]), name)
        if not torch.equal(tensor, ready[twin]):
            raise CheckpointError(
                f"{source} has different weights for {twin} and {name}, which the model shares"
            )


def _capped(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
