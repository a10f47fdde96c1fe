"""What was cut from a network, kept on the network itself, so that any pruned module can be saved,
and pruned again.

A pruned module carries a plain dict (`niwaki.models.PROVENANCE`) with the plans that made it, in
order, and the shapes and size attributes that its original had. From these the original becomes the
pruned one without niwaki: give every tensor its new shape, every attribute its new value, and load
    the weights. The dict holds only what JSON holds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from niwaki.core.plan import Plan
from niwaki.models import PROVENANCE, provenance
from niwaki.running import Inputs, described, named_state
from niwaki.running.settings import read_path


def remember(original: nn.Module, smaller: nn.Module, plan: Plan, inputs: Inputs) -> None:
    """Note on `smaller` that `plan` made it from `original`, after whatever was cut from that
    before.
    """
    known = provenance(original)
    shapes = {name: list(tensor.shape) for name, tensor in named_state(original).items()}
    attributes: dict[str, dict[str, Any]] = {
        path: dict(table) for path, table in known.get("attributes", {}).items()
    }
    modules = dict(original.named_modules())
    for path, module in smaller.named_modules():
        for name in (
            (*size_attributes(module), *(plan.sizes or {}).get(path, ())) if path in modules else ()
        ):
            value = read_path(modules[path], name)
            value = int(value) if isinstance(value, bool) else value  # a switch of the plan's
            if _is_size(value) and read_path(module, name) != value:
                attributes.setdefault(path, {}).setdefault(name, plain(value))
    steps = [
        *known.get("steps", []),
        {name: [kept.width, list(kept.units)] for name, kept in plan.items()},
    ]
    noted = {
        **known,
        "inputs": described(inputs),
        "steps": steps,
        "shapes": known.get(
            "shapes", shapes
        ),  # the very first ones: a bias that a repair added since is not among them
        "attributes": attributes,
        "stand_ins": {
            **known.get("stand_ins", {}),
            **{name: kind for table in plan.branches.values() for name, kind in table.items()},
        },
    }
    setattr(smaller, PROVENANCE, noted)


def size_attributes(module: nn.Module) -> dict[str, Any]:
    """The integers, and sequences of integers, that a module keeps under public names."""
    public = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training"
    }
    return {name: value for name, value in public.items() if _is_size(value)}


def _is_size(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(type(item) is int for item in value)
    return type(value) is int


def plain(value: Any) -> Any:
    """A size as JSON holds it."""
    return list(value) if isinstance(value, (tuple, list)) else value
