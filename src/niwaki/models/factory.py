"""From a text to a network: a listed name with its settings, or an import string of the user's own
factory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from niwaki.core.errors import NiwakiError, SettingError
from niwaki.core.inputs import Inputs, made_up
from niwaki.core.registry import parse
from niwaki.models.architecture import architectures
from niwaki.models.imported import call_factory, is_import_string, literals, refuse_undeclared
from niwaki.models.libraries import (
    WANTED,
    build_from_library,
    is_library,
    origin_of,
    refuse_files,
    refuse_unsafe,
)
from niwaki.models.trusted import is_trusted, refuse_unknown, without_current_folder

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
    return _remembered(spec, wanted, dict(arguments or {}), here=True)


def _remembered(
    spec: str, wanted: dict[str, int], arguments: dict[str, Any], *, here: bool
) -> nn.Module:
    """The network, which knows how it was built."""
    model = _built(spec, wanted, arguments, here)
    # a config that was read from a file goes along whole: the file may be gone when the network is
    # built again
    whole = origin_of(model) if spec.startswith("transformers:") else None
    plain = {"factory": _without_downloads(spec), "arguments": {**wanted, **arguments}}
    setattr(model, PROVENANCE, whole or plain)
    return model


def build_guarded(spec: str, arguments: Mapping[str, Any], trust: Sequence[str] = ()) -> nn.Module:
    """The same for a spec and arguments out of a file: nothing runs but what is known to build a
    network.

    Listed names and networks of the three libraries are built; of import strings only classes that
    are modules, and functions that say they return one, from packages other than Python's own:
    imported already, installed, or named by the user.

    Args:
        trust: packages whose code the user lets run, also from the current folder.

    Raises:
        SettingError: anything else, or arguments that would fetch, read or run something.
    """
    refuse_unsafe(arguments)
    known = {
        key: arguments[key] for key in ("classes", "in_channels", "image_size") if key in arguments
    }
    rest = {key: value for key, value in arguments.items() if key not in known}
    here = False
    if is_library(spec):
        library, name = _parts(spec)
        refuse_unsafe(literals(parse(name)[1]))
        refuse_files(parse(name)[0], rest)
        if importlib.util.find_spec(library) is not None:  # else it is said what to install
            refuse_unknown(library)
    elif is_import_string(spec, architectures):
        refuse_undeclared(spec, trust)
        here = is_trusted(spec.partition(":")[0], trust)
    wanted = {key: value for key, value in known.items() if value is not None}
    with contextlib.nullcontext() if here else without_current_folder():
        return _remembered(spec, wanted, rest, here=here)


def provenance(model: nn.Module) -> dict[str, Any]:
    """How a network was built ("factory", "arguments"), where it is known, and what was cut from it
    since.
    """
    own: dict[str, Any] = getattr(model, PROVENANCE, None) or {}
    return dict(own) if "factory" in own else {**(origin_of(model) or {}), **own}


def _built(spec: str, wanted: dict[str, int], arguments: dict[str, Any], here: bool) -> nn.Module:
    if is_library(spec):
        library, rest = _parts(spec)
        name, settings = parse(rest)
        renamed = {
            WANTED[library][key]: value for key, value in wanted.items() if key in WANTED[library]
        }
        return build_from_library(spec, name, {**renamed, **literals(settings), **arguments})
    if is_import_string(spec, architectures):
        return call_factory(spec, wanted, arguments, here=here)
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
        inputs: Inputs = tree_map_only(
            Tensor, lambda tensor: tensor.to(device), made_up(known["inputs"], batch=batch)
        )
        return inputs
    described = getattr(model, "pretrained_cfg", None)
    shape = getattr(model, "input_shape", None)
    if shape is None and isinstance(described, Mapping):
        shape = described.get("input_size")
    if shape is None and isinstance(getattr(model, "dummy_inputs", None), Mapping):
        return dict(model.dummy_inputs)  # type: ignore[arg-type]  # seen to be a mapping
    if not isinstance(shape, tuple):
        raise SettingError(
            f"{type(model).__name__} does not say what it reads; set model.input_shape = "
            "(channels, height, width), or give example inputs yourself"
        )
    noise = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    first = next(model.parameters(), noise)
    return noise.to(first.device)
