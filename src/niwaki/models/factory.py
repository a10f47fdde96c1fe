"""From a text to a network: a listed name with its settings, or an import string of the user's own
factory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from niwaki.core.errors import NiwakiError, SettingError
from niwaki.core.registry import parse
from niwaki.models.architecture import architectures
from niwaki.models.imported import call_factory, is_import_string, literals, refuse_undeclared
from niwaki.models.libraries import WANTED, build_from_library, is_library, origin_of, refuse_unsafe
from niwaki.running import Inputs, made_up

PROVENANCE = (
    "_niwaki"  # a plain dict that a model carries: how it was built and what was cut from it
)


def available() -> list[str]:
    """Names that `build` knows, sorted."""
    return sorted(architectures)


def build(
    spec: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network that `spec` names, with fresh weights (seed torch before the call), in training
    mode.

    Args:
        spec: a listed name with settings, `vgg16:classifier=two-layer`; a network of timm,
            torchvision or transformers, `timm:resnet18:num_classes=7`, `transformers:config.json`;
            or an import string, `package.module:factory:key=value,...`, whose values are read as
            Python literals where they are ones.
        classes: what the data has; used where `spec` does not state it. An import string's factory
            is given it only where its signature names it; otherwise the factory decides alone. So
            for the next two.
        in_channels: colour channels of an image.
        image_size: height and width of an image, in pixels.
        arguments: more of them for the factory, where they are not of the kind that fits into
            `spec`.

    Raises:
        UnknownNameError: no such model, setting or factory; the nearest names are offered.
        SettingError: a setting of the wrong type or value, or one that contradicts an argument.
        NiwakiError: the import string cannot be imported, or its factory fails or returns no
            `nn.Module`.
    """
    stated = {"classes": classes, "in_channels": in_channels, "image_size": image_size}
    wanted = {key: value for key, value in stated.items() if value is not None}
    model = _built(spec, wanted, dict(arguments or {}))
    # a config that was read from a file goes along whole: the file may be gone when the network is
    # built again
    whole = origin_of(model) if spec.startswith("transformers:") else None
    given = {**wanted, **(arguments or {})}
    setattr(model, PROVENANCE, whole or {"factory": _without_downloads(spec), "arguments": given})
    return model


def build_guarded(spec: str, arguments: Mapping[str, Any], beside: Path | None = None) -> nn.Module:
    """The same for a spec and arguments out of a file: nothing runs but what is known to build a
    network.

    Listed names and networks of the three libraries are built; of import strings only classes that
    are modules, and functions that say they return one, from packages other than Python's own.

    Args:
        beside: the folder that the file lies in; nothing is imported from there.

    Raises:
        SettingError: anything else, or arguments that would fetch, read or run something.
    """
    refuse_unsafe(arguments)
    known = {
        key: arguments[key] for key in ("classes", "in_channels", "image_size") if key in arguments
    }
    rest = {key: value for key, value in arguments.items() if key not in known}
    if is_library(spec):
        refuse_unsafe(literals(parse(_parts(spec)[1])[1]))
    elif is_import_string(spec, architectures):
        refuse_undeclared(spec, beside)
    return build(spec, **known, arguments=rest)


def provenance(model: nn.Module) -> dict[str, Any]:
    """How a network was built ("factory", "arguments"), where it is known, and what was cut from it
    since.
    """
    own: dict[str, Any] = getattr(model, PROVENANCE, None) or {}
    return dict(own) if "factory" in own else {**(origin_of(model) or {}), **own}


def _built(spec: str, wanted: dict[str, int], arguments: dict[str, Any]) -> nn.Module:
    if is_library(spec):
        library, rest = _parts(spec)
        name, settings = parse(rest)
        renamed = {
            WANTED[library][key]: value for key, value in wanted.items() if key in WANTED[library]
        }
        return build_from_library(spec, name, {**renamed, **literals(settings), **arguments})
    if is_import_string(spec, architectures):
        return call_factory(spec, wanted, arguments)
    settings_of = architectures.build(spec)
    for key in parse(spec)[1].keys() & wanted.keys():
        if getattr(settings_of, key) != wanted[key]:
            raise SettingError(
                f"{spec!r} states {key}={getattr(settings_of, key)}, but the data has {wanted[key]}"
            )
    fields = {field.name for field in dataclasses.fields(settings_of)}
    for key in arguments.keys() - fields:
        raise SettingError(f"{spec!r} has no setting {key!r}; it has {', '.join(sorted(fields))}")
    try:
        return dataclasses.replace(settings_of, **{**wanted, **arguments}).build()
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # values of any type come in as arguments
        if isinstance(error, NiwakiError):
            raise
        raise SettingError(
            f"{spec!r} cannot be built with {str({**wanted, **arguments})[:200]}: {error}"
        ) from error


def _parts(spec: str) -> tuple[str, str]:
    library, _, rest = spec.partition(":")
    return library, rest


def _without_downloads(spec: str) -> str:
    """The spec as it is to be remembered: trained weights come from the saved file, not again from
    the network.
    """
    if not is_library(spec):
        return spec
    library, rest = _parts(spec)
    name, settings = parse(rest)
    kept = ",".join(
        f"{key}={value}"
        for key, value in settings.items()
        if not key.startswith(("pretrained", "weights"))
    )
    return f"{library}:{name}:{kept}" if kept else f"{library}:{name}"


def example_inputs(model: nn.Module, batch: int = 2) -> Inputs:
    """Inputs of noise to run `model` on, on its device, always the same.

    For images (batch, channels, height, width), float32, in the shape that the model's
    `input_shape`, or timm's description of it, says; for a network of transformers its
    `dummy_inputs`; for a pruned network the kind that it was pruned on.

    Raises:
        SettingError: the model says nothing of its input.
    """
    known = getattr(model, PROVENANCE, {})
    if "inputs" in known:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        made: Inputs = tree_map_only(
            Tensor, lambda tensor: tensor.to(device), made_up(known["inputs"], batch=batch)
        )
        return made
    described = getattr(model, "pretrained_cfg", None)
    shape = getattr(model, "input_shape", None)
    if shape is None and isinstance(described, Mapping):
        shape = described.get("input_size")
    if shape is None and isinstance(getattr(model, "dummy_inputs", None), Mapping):
        return dict(model.dummy_inputs)  # type: ignore[arg-type]  # seen to be a mapping
    if not isinstance(shape, tuple):
        raise SettingError(
            f"{type(model).__name__} does not say what it reads; set model.input_shape = "
            "(channels, height, width), "
            "or give example inputs yourself"
        )
    noise = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    first = next(model.parameters(), noise)
    return noise.to(first.device)
