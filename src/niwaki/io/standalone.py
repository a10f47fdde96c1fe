"""Load a network that niwaki pruned, where niwaki is not installed: this file needs torch and
safetensors alone.

    from load_without_niwaki import load_pruned
    model = load_pruned(".", original)  # `original`: the unpruned network, with any weights

plan.json says which tensors and which integers of which module got smaller, and which layers are
gone; everything else is the original's. Layers of which only blocks are kept (blocks.json) become
ordinary ones here, with zeros where a block is gone.
"""

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import utils


def load_pruned(folder: str, original: torch.nn.Module) -> torch.nn.Module:
    """Make `original` the pruned network, in place, on the CPU in evaluation mode; ValueError where
    it is not the original.
    """
    place = pathlib.Path(folder)
    plan = json.loads((place / "plan.json").read_text(encoding="utf-8"))
    tensors = load_file(place / "model.safetensors")
    if (place / "buffers.safetensors").exists():
        tensors.update(load_file(place / "buffers.safetensors"))
    if (place / "blocks.json").exists():
        blocks = json.loads((place / "blocks.json").read_text(encoding="utf-8"))
        for layer, held in blocks["layers"].items():
            tensors[f"{layer}.weight"] = whole_weight(
                tensors[f"{layer}.weight"], held, blocks["shapes"][layer]
            )
    rebuild(original, plan, tensors)
    return original.eval()


class Nothing(torch.nn.Module):
    """Stands where a residual branch was: zeros of the shape of its first input."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        return torch.zeros_like(next(tensors))


def rebuild(model: torch.nn.Module, plan: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Give every tensor of a network its pruned value, and every size attribute its pruned size;
    all of it or nothing.
    """
    _make_plain(model, {*plan["tensors"], *tensors})
    present = dict(model.named_modules())
    for path, kind in plan.get("stand_ins", {}).items():
        if not path or path not in present:
            raise ValueError(f"it is of another model: there is no layer {path!r}")
        model.set_submodule(path, torch.nn.Identity() if kind == "identity" else Nothing())
    modules = dict(model.named_modules())
    own = {
        name: tensor for path, module in modules.items() for name, tensor in _tensors(path, module)
    }
    _compare(own, plan["tensors"], plan.get("dtypes", {}), tensors)
    changes = []
    for path, table in plan["attributes"].items():
        for name, (old, new) in table.items():
            owner, attribute = _owner(modules.get(path), name)
            value = _table(owner).get(attribute)
            if (
                not isinstance(value, (int, list, tuple))
                or (value if isinstance(value, int) else list(value)) != old
            ):
                raise ValueError(
                    f"it is of another model: {path}.{name} was {old} before pruning, here it is "
                    f"{value}"
                )
            changes.append((owner, attribute, new if isinstance(value, int) else type(value)(new)))
    for name in tensors.keys() - own.keys():
        path, _, short = name.rpartition(".")
        if path not in modules or short not in modules[path]._parameters:
            raise ValueError(f"it is of another model: there is no place for {name}")
    for owner, attribute, value in changes:
        _table(owner)[attribute] = value
    for name, tensor in tensors.items():
        weight = _laid_out(tensor, plan["strides"].get(name))
        if name in own:
            own[name].data = weight
        else:  # a bias that a repair added
            path, _, short = name.rpartition(".")
            modules[path].register_parameter(short, torch.nn.Parameter(weight))


def _make_plain(model: torch.nn.Module, names: set[str]) -> None:
    """Let weights that the original computes (weight_norm, spectral_norm) be ordinary ones where
    those of the pruned network are.
    """
    undo = {"weight_norm": utils.remove_weight_norm, "spectral_norm": utils.remove_spectral_norm}
    for path, layer in model.named_modules():
        steps: Any = layer._modules.get("parametrizations") or {}
        if steps and all(f"{path}.{tensor}".lstrip(".") in names for tensor in steps):
            weights = {tensor: getattr(layer, tensor).detach() for tensor in steps}
            layer.__class__ = utils.parametrize.type_before_parametrizations(layer)
            del layer._modules["parametrizations"]
            for tensor, weight in weights.items():
                layer.register_parameter(tensor, torch.nn.Parameter(weight))
        for hook in [*layer._forward_pre_hooks.values()]:
            kind = type(hook).__module__.removeprefix("torch.nn.utils.")
            if kind in undo and f"{path}.{hook.name}".lstrip(".") in names:
                undo[kind](layer, hook.name)


def whole_weight(values: torch.Tensor, held: dict[str, Any], shape: list[int]) -> torch.Tensor:
    """A weight of this shape out of its kept blocks: rows that keep the same columns lie together,
    product behind product.
    """
    rows, columns = torch.tensor(held["rows"]), torch.tensor(held["columns"])
    table = torch.zeros(int(rows.max()) + 2, int(columns.max()) + 2, dtype=torch.bool)
    table[-1], table[:, -1] = True, True  # group -1 always stays
    for row, column in held["kept"]:
        table[row, column] = True
    patterns, which = torch.unique(table[rows][:, columns], dim=0, return_inverse=True)
    products: dict[int, list[int]] = {}
    for index, number in enumerate(which.tolist()):
        products.setdefault(number, []).append(index)
    reads = [patterns[number].nonzero().squeeze(1) for number in products]
    parts = [
        (len(own), len(read), *shape[2:])
        for own, read in zip(products.values(), reads, strict=True)
    ]
    sizes = [math.prod(part) for part in parts]
    if values.shape != (sum(sizes),):
        raise ValueError(f"its blocks have {sum(sizes)} weights, the file has {list(values.shape)}")
    whole = values.new_zeros(shape)
    for own, read, part, piece in zip(
        products.values(), reads, parts, torch.split(values, sizes), strict=True
    ):
        whole[torch.tensor(own)[:, None], read] = piece.view(part)
    return whole


def _owner(module: Any, path: str) -> tuple[Any, str]:
    """What holds an attribute: the module, or an object that it keeps (`config.num_heads`); nothing
    behind underscores.
    """
    *way, attribute = path.split(".")
    for step in way:
        module = None if step.startswith("_") else _table(module).get(step)
    return (None if attribute.startswith("_") else module), attribute


def _table(holder: Any) -> dict[str, Any]:
    """What a module, a settings object or a dict holds, by name."""
    if type(holder) is dict:
        return holder
    return vars(holder) if hasattr(holder, "__dict__") else {}


def _compare(
    own: dict[str, torch.Tensor],
    planned: dict[str, Any],
    types: dict[str, str],  # older plans name none
    tensors: dict[str, torch.Tensor],
) -> None:
    """ValueError unless the model's tensors are those that were pruned, and the file's what is left
    of them.
    """
    for name, (old, new) in planned.items():
        if (list(own[name].shape) if name in own else None) != old:
            shape = list(own[name].shape) if name in own else "no such tensor"
            raise ValueError(
                f"it is of another model: {name} was {old} before pruning, here it is {shape}"
            )
        if name not in tensors or list(tensors[name].shape) != new:
            raise ValueError(f"its weights do not fit its plan: {name} must be {new}")
    present = {
        id(own[name]) for name in tensors if name in own
    }  # of tensors that are shared one name is enough
    missing = [name for name, tensor in own.items() if id(tensor) not in present]
    unknown = [name for name in tensors if name not in own and name not in planned]
    if missing or unknown:
        raise ValueError(
            f"it is of another model: missing {missing[:5]}, not expected {unknown[:5]}"
        )
    for name, tensor in tensors.items():
        wanted = types.get(name, types.get(""))
        if wanted and str(tensor.dtype) != f"torch.{wanted}":
            raise ValueError(f"its weights do not fit its plan: {name} must be {wanted}")
        if name not in planned and tensor.shape != own[name].shape:
            raise ValueError(
                f"it is of another model: {name} is {list(tensor.shape)}, here "
                f"{list(own[name].shape)}"
            )


def _laid_out(tensor: torch.Tensor, strides: Any) -> torch.Tensor:
    """A copy in the memory layout that it had; one in torch's own memory, as its alignment decides
    the last bit too.
    """
    if strides is None or len(strides) != tensor.ndim or not tensor.numel():
        return tensor.clone()
    spread = (
        sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True)) + 1
    )
    if spread != tensor.numel():
        return tensor.clone()
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def _tensors(path: str, module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for table in (module._parameters, module._buffers):
        for name, tensor in table.items():
            if tensor is not None:
                yield f"{path}.{name}" if path else name, tensor
