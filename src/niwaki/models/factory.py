"""From a text to a network: a listed name with its settings, or an import string of the user's own factory."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from niwaki.errors import SettingError
from niwaki.methods import parse
from niwaki.models.architecture import architectures
from niwaki.models.imported import call_factory, is_import_string


def available() -> list[str]:
    """Names that `build` knows, sorted."""
    return sorted(architectures)


def build(spec: str, *, classes: int | None = None, in_channels: int | None = None, image_size: int | None = None) -> nn.Module:
    """The network that `spec` names, with fresh weights (seed torch before the call), in training mode.

    Args:
        spec: a listed name with settings, `vgg16:classifier=two-layer`, or an import string,
            `package.module:factory:key=value,...`, whose values are read as Python literals where they are ones.
        classes: what the data has; used where `spec` does not state it. An import string's factory is given it only
            where its signature names it; otherwise the factory decides alone. So for the next two.
        in_channels: colour channels of an image.
        image_size: height and width of an image, in pixels.

    Raises:
        UnknownNameError: no such model, setting or factory; the nearest names are offered.
        SettingError: a setting of the wrong type or value, or one that contradicts an argument.
        NiwakiError: the import string cannot be imported, or its factory fails or returns no `nn.Module`.
    """
    arguments = {"classes": classes, "in_channels": in_channels, "image_size": image_size}
    wanted = {key: value for key, value in arguments.items() if value is not None}
    if is_import_string(spec, architectures):
        return call_factory(spec, wanted)
    settings = architectures.build(spec)
    for key in parse(spec)[1].keys() & wanted.keys():
        if getattr(settings, key) != wanted[key]:
            raise SettingError(f"{spec!r} states {key}={getattr(settings, key)}, but the data has {wanted[key]}")
    return dataclasses.replace(settings, **wanted).build()


def example_inputs(model: nn.Module, batch: int = 2) -> Tensor:
    """Images of noise to run `model` on: (batch, channels, height, width), float32, on its device, always the same.

    Raises:
        SettingError: the model has no `input_shape` (channels, height, width), so nothing is known of its input.
    """
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple):
        raise SettingError(
            f"{type(model).__name__} does not say what it reads; set model.input_shape = (channels, height, width), "
            "or give example inputs yourself"
        )
    noise = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    first = next(model.parameters(), noise)
    return noise.to(first.device)
