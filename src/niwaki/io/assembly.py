"""A pruned network out of the files of its folder: the original is built, every tensor and size
attribute gets its pruned value, and what does not fit is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from niwaki import models
from niwaki.core.errors import CheckpointError, NiwakiError
from niwaki.io import standalone
from niwaki.io.blocks import BLOCKS, opened, put_back
from niwaki.io.blueprint import Blueprint
from niwaki.io.construct import build_original
from niwaki.io.manifest import BUFFERS, WEIGHTS, read_text
from niwaki.running import duplicate, named_state, preserved_rng


def assembled(
    blueprint: Blueprint,
    files: Sequence[Path],
    factory: nn.Module | Callable[[], nn.Module] | str | None,
    folder: Path,
    trust: Sequence[str] = (),
) -> nn.Module:
    """The network of a blueprint and the files beside it, on the CPU, in evaluation mode.

    Args:
        files: weights, buffers and blocks; others are passed over.
        factory: the original, what builds it, or None for the factory that the blueprint names.
        folder: for messages.
        trust: packages whose code the blueprint may name.

    Raises:
        CheckpointError: the files do not fit the original, or it cannot be built.
    """
    tensors = {
        name: tensor
        for file in files
        if file.name in (WEIGHTS, BUFFERS)
        for name, tensor in _tensors(file).items()
    }
    blocks = next((read_text(file) for file in files if file.name == BLOCKS), None)
    if blocks is not None:
        tensors = opened(blocks, tensors, str(folder / BLOCKS))
    sizes = {name: math.prod(pair[0] or ()) for name, pair in blueprint.tensors.items()}
    sizes |= {name: tensor.numel() for name, tensor in tensors.items() if name not in sizes}
    with preserved_rng():
        original = _original(blueprint, factory, sizes, folder, trust)
    refuse_broken(original, tensors, folder)
    _refuse_other_kinds(original, tensors, folder)
    try:
        standalone.rebuild(original, blueprint.as_data(), tensors)
    except ValueError as error:
        raise CheckpointError(
            f"{folder} cannot be loaded into {type(original).__name__}: {error}"
        ) from error
    original.eval()  # caches of the full size go with the mode, in modules that keep some
    _remember(original, blueprint)
    return original if blocks is None else put_back(original, blocks, str(folder / BLOCKS))


def _original(
    blueprint: Blueprint,
    factory: Any,
    sizes: Mapping[str, int],
    folder: Path,
    trust: Sequence[str],
) -> nn.Module:
    if isinstance(factory, nn.Module):
        return duplicate(factory)
    if isinstance(factory, str):
        return models.build(factory, **_split(blueprint.arguments))
    if factory is not None:
        built = factory()
        if not isinstance(built, nn.Module):
            raise CheckpointError(
                f"model= must give a torch.nn.Module; it gave a {type(built).__name__}"
            )
        return built
    if blueprint.factory is None:
        raise CheckpointError(
            f"{folder} does not name the factory of its model; pass the original: load(folder, "
            "model=…)"
        )
    try:
        return build_original(blueprint.factory, blueprint.arguments, sizes, trust)
    except NiwakiError as error:
        raise CheckpointError(
            f"{folder} names the factory {blueprint.factory!r}, but {error}"
        ) from error


def _split(arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        key: arguments[key] for key in ("classes", "in_channels", "image_size") if key in arguments
    }
    return {
        **known,
        "arguments": {key: value for key, value in arguments.items() if key not in known},
    }


def _remember(model: nn.Module, blueprint: Blueprint) -> None:
    """Let the loaded network know where it comes from, so that it can be pruned and saved again."""
    before = {name: list(tensor.shape) for name, tensor in named_state(model).items()}
    before |= {name: old for name, (old, _) in blueprint.tensors.items() if old is not None}
    added = {name for name, (old, _) in blueprint.tensors.items() if old is None}
    noted = {
        "factory": blueprint.factory,
        "arguments": dict(blueprint.arguments),
        "inputs": blueprint.inputs,
        "steps": [
            {name: [kept.width, list(kept.units)] for name, kept in plan.items()}
            for plan in blueprint.steps
        ],
        "shapes": {name: shape for name, shape in before.items() if name not in added},
        "attributes": {
            path: {name: old for name, (old, _) in table.items()}
            for path, table in blueprint.attributes.items()
        },
        "stand_ins": dict(blueprint.stand_ins),
    }
    setattr(model, models.PROVENANCE, noted)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); copy or download it again"
        ) from error


def refuse_broken(original: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Raises CheckpointError where a weight holds NaN or infinity."""
    learned = dict(original.named_parameters(remove_duplicate=False))
    bad = [
        name
        for name, t in tensors.items()
        if name in learned and t.is_floating_point() and not bool(t.isfinite().all())
    ]
    if bad:
        raise CheckpointError(
            f"{where} holds NaN or infinite weights in {', '.join(bad[:5])}; its training diverged"
        )


def _refuse_other_kinds(original: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Whole numbers in the place of real ones; plans of schema 2 name no types to compare with."""
    own = named_state(original)
    for name, tensor in tensors.items():
        if name in own and own[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{where} holds numbers of another kind for {name}: {tensor.dtype}, where "
                f"{type(original).__name__} has {own[name].dtype}"
            )
