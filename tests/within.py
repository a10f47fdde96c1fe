"""Parts of a network by name. A pruned network comes back as an `nn.Module`, whose attributes may
be anything: these say what the part is, and fail where it is not.
"""

from typing import TypeVar

from torch import Tensor, nn


def tensor(model: object, name: str) -> Tensor:
    """The parameter or buffer called `name`, with dots: "blocks.0.weight"."""
    return part(model, name, Tensor)


def size(model: object, name: str) -> int:
    """The integer that the attribute `name` holds: "blocks.0.out_channels"."""
    return part(model, name, int)


def layer(model: object, name: str) -> nn.Module:
    """The module called `name`."""
    return part(model, name, nn.Module)


Part = TypeVar("Part")


def part(model: object, name: str, kind: type[Part]) -> Part:
    """The attribute called `name`, which is a `kind`."""
    value = model
    for step in name.split("."):
        value = getattr(value, step)
    assert isinstance(value, kind), f"{name} is {type(value).__name__}, not {kind.__name__}"
    return value
