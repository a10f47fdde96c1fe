"""Weights that a layer computes from other tensors before it uses them: normed by torch's
weight_norm or spectral_norm (as hooks, or as parametrisations), or masked by torch.nn.utils.prune.

They are cut as what they come out as: `with_plain_weights` gives a copy of the network in which
they are ordinary parameters, and `computed_again` makes them of the same tensors again, so that
they come out as they are. A mask is made final: the zeros stay zeros, as values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm
from torch.nn.utils import remove_weight_norm as remove_old_weight_norm
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from niwaki.running.duplicates import duplicate
from niwaki.running.inputs import preserved_rng

Kind = Literal["weight_norm", "spectral_norm", "old weight_norm", "old spectral_norm", "mask"]


@dataclass(frozen=True)
class Computed:
    """One such weight.

    Attributes:
        layer, tensor: where it is used: "layer1.conv", "weight".
        how: what computes it, with its settings.
    """

    layer: str
    tensor: str
    kind: Kind
    how: Any

    @property
    def name(self) -> str:
        """As an ordinary parameter would be called."""
        return f"{self.layer}.{self.tensor}" if self.layer else self.tensor


def computed_weights(model: nn.Module) -> tuple[Computed, ...]:
    """All of them, in the order of the modules; what computes a weight in several steps, or in
    another way, is left out.
    """
    return tuple(
        weight for name, module in model.named_modules() for weight in _of_module(name, module)
    )


def _of_module(name: str, module: nn.Module) -> Iterator[Computed]:
    yield from _parametrised(name, module)
    hooks: list[Any] = list(module._forward_pre_hooks.values())  # of classes without types
    for hook in hooks:
        if isinstance(hook, prune.BasePruningMethod):
            yield Computed(name, hook._tensor_name, "mask", hook)
        elif type(hook).__module__ == "torch.nn.utils.weight_norm":
            yield Computed(name, hook.name, "old weight_norm", hook)
        elif type(hook).__module__ == "torch.nn.utils.spectral_norm":
            yield Computed(name, hook.name, "old spectral_norm", hook)


def _parametrised(name: str, module: nn.Module) -> list[Computed]:
    """All parametrised weights of a layer; none where one of them is of another kind."""
    if not parametrize.is_parametrized(module):
        return []
    weights = []
    for tensor, steps in module.parametrizations.items():  # type: ignore[union-attr,operator]  # a ModuleDict
        kind = _KINDS.get(type(steps[0]).__name__)
        if kind is None or len(steps) > 1 or getattr(module, tensor).ndim < 2:
            return []
        weights.append(Computed(name, tensor, kind, steps[0]))
    return weights


_KINDS: dict[str, Kind] = {"_WeightNorm": "weight_norm", "_SpectralNorm": "spectral_norm"}


def with_plain_weights(model: nn.Module, computed: tuple[Computed, ...]) -> nn.Module:
    """A copy in which these weights are parameters, with the values that they have in
    evaluation mode.
    """
    values = {weight.name: _value(model, weight) for weight in computed}
    twin = duplicate(model)
    learning = {
        weight.name: any(
            p.requires_grad for p in _sources(twin.get_submodule(weight.layer), weight)
        )
        for weight in computed
    }
    for weight in computed:
        layer, learned = twin.get_submodule(weight.layer), learning[weight.name]
        _undo(layer, weight)
        parameter = nn.Parameter(values[weight.name], requires_grad=learned)
        setattr(layer, weight.tensor, parameter)
    return twin


def _sources(layer: nn.Module, weight: Computed) -> list[nn.Parameter]:
    if weight.kind in _KINDS.values():
        table: Any = layer.parametrizations  # a ModuleDict, which nn.Module does not say
        return list(table[weight.tensor].parameters())
    sources = (layer._parameters.get(f"{weight.tensor}_{end}") for end in ("orig", "g", "v"))
    return [parameter for parameter in sources if parameter is not None]


def _value(model: nn.Module, weight: Computed) -> Tensor:
    """What the weight comes out as; of a spectral norm, without another step of its iteration."""
    layer = model.get_submodule(weight.layer)
    with torch.no_grad():
        if weight.kind == "mask":
            value = weight.how.apply_mask(layer)
        elif weight.kind == "old weight_norm":
            value = weight.how.compute_weight(layer)
        elif weight.kind == "old spectral_norm":
            value = weight.how.compute_weight(layer, do_power_iteration=False)
        else:
            steps = _steps(layer, weight)
            before = weight.how.training
            weight.how.training = False
            try:
                value = steps()
            finally:
                weight.how.training = before
    return torch.Tensor.detach(value).clone()


def _steps(layer: nn.Module, weight: Computed) -> Any:
    """What torch computes a weight by (a `ParametrizationList`)."""
    table: Any = layer.parametrizations
    return table[weight.tensor]


def _undo(layer: nn.Module, weight: Computed) -> None:
    if weight.kind == "mask":
        prune.remove(layer, weight.tensor)
    elif weight.kind == "old weight_norm":
        remove_old_weight_norm(layer, weight.tensor)
    elif weight.kind == "old spectral_norm":
        remove_spectral_norm(layer, weight.tensor)
    elif "parametrizations" in layer._modules:
        # not torch's remove_parametrizations: it takes the weight from the class, and a copy has
        # the class of the layer that it is a copy of
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer._modules["parametrizations"]


def computed_again(model: nn.Module, computed: tuple[Computed, ...]) -> None:
    """Make these weights of a network, ordinary ones now, of the same tensors as before: they come
    out as they are, to rounding, in evaluation mode. Masks are not put on again.
    """
    with preserved_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own hooks, which the model uses
        for weight in computed:
            layer = model.get_submodule(weight.layer)
            value = layer._parameters.get(weight.tensor)
            if value is not None:
                learned = value.requires_grad
                _AGAIN[weight.kind](layer, weight)
                for parameter in _sources(layer, weight) if weight.kind != "mask" else ():
                    parameter.requires_grad_(learned)
                result = vars(layer).get(weight.tensor)
                if isinstance(result, Tensor):  # of a hook; without a gradient it can be copied
                    vars(layer)[weight.tensor] = result.detach()


def _weight_norm(layer: nn.Module, weight: Computed) -> None:
    parametrizations.weight_norm(layer, weight.tensor, weight.how.dim)
    steps = _steps(layer, weight)
    _fill_empty(steps.original0, steps.original1)


def _old_weight_norm(layer: nn.Module, weight: Computed) -> None:
    axis: Any = None if weight.how.dim == -1 else weight.how.dim
    old_weight_norm(layer, weight.tensor, axis)
    length, direction = (layer.get_parameter(f"{weight.tensor}_{end}") for end in "gv")
    _fill_empty(length, direction)


def _fill_empty(length: Tensor, direction: Tensor) -> None:
    """A direction where a weight has none: a row of zeros has no norm to be divided by."""
    with torch.no_grad():
        direction.copy_(torch.where(length == 0, torch.ones_like(direction), direction))


def _spectral_norm(layer: nn.Module, weight: Computed) -> None:
    how, value = weight.how, getattr(layer, weight.tensor).detach().clone()
    parametrizations.spectral_norm(layer, weight.tensor, how.n_power_iterations, how.eps, how.dim)
    steps = _steps(layer, weight)
    own = steps[0]
    matrix = own._reshape_weight_to_matrix(value)
    _norm_of_one(own._u, matrix, own._v)


def _old_spectral_norm(layer: nn.Module, weight: Computed) -> None:
    how, value = weight.how, getattr(layer, weight.tensor).detach().clone()
    old_spectral_norm(layer, weight.tensor, how.n_power_iterations, how.eps, how.dim)
    hooks: list[Any] = list(layer._forward_pre_hooks.values())  # of classes without types
    own = next(
        hook
        for hook in hooks
        if type(hook).__module__ == type(how).__module__ and hook.name == weight.tensor
    )
    matrix = own.reshape_weight_to_matrix(value)
    # its first vectors are noise: a few steps make them those of the largest singular value
    for _ in range(15):
        own.compute_weight(layer, do_power_iteration=True)
    u, v = (layer.get_buffer(f"{weight.tensor}_{end}") for end in "uv")
    _norm_of_one(u, matrix, v)


def _norm_of_one(u: Tensor, matrix: Tensor, v: Tensor) -> None:
    """Scale the stored vector so that the norm, as it is computed of both, is one: what is left of
    a weight has a smaller norm, and would be scaled up. Training scales the vectors afresh.
    """
    if matrix.is_meta:
        return
    with torch.no_grad():
        norm = torch.dot(u, torch.mv(matrix, v))
        if float(norm.abs()) > 0:
            u.div_(norm)


_AGAIN: dict[Kind, Callable[[nn.Module, Computed], None]] = {
    "weight_norm": _weight_norm,
    "old weight_norm": _old_weight_norm,
    "spectral_norm": _spectral_norm,
    "old spectral_norm": _old_spectral_norm,
    "mask": lambda layer, weight: None,
}


def described(computed: tuple[Computed, ...]) -> list[str]:
    """What a reader should know of them, in words; nothing where there are none."""
    words = []
    masks = [weight.name for weight in computed if weight.kind == "mask"]
    if masks:
        words.append(
            f"the masks of torch.nn.utils.prune on {_listed(masks)} are final now: zeros that are "
            "left are values"
        )
    spectral = [weight.name for weight in computed if "spectral" in weight.kind]
    if spectral:
        words.append(
            f"{_listed(spectral)} with spectral_norm come out as they were, without what went; "
            "training scales them to a norm of one again"
        )
    return words


def _listed(names: list[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
