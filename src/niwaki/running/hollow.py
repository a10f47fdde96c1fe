"""A run for its path alone: shapes are computed, numbers are not.

Which operators a network calls on other inputs than its example hangs, as a rule, on their sizes
and not on their values. So whatever comes of the floating-point inputs is memory that nobody
filled in, of the shape and layout that torch's meta kernels give it. All else is computed: what
code makes of sizes (positions, masks) and of parameters alone, so that nothing false stays behind
in a cache of such things. Where code asks for a number that was never computed, reads a place by
one, or calls what has no meta kernel, the run ends with an error, and only a real one can tell.

>>> x, weight = torch.ones(2, 3), torch.ones(4, 3)
>>> hollow = HollowRun()
>>> hollow.start(x)
>>> with hollow:
...     y, of_weights = (x @ weight.T).relu(), weight.sum()
>>> y.shape, of_weights.item()
(torch.Size([2, 4]), 12.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from niwaki.core.errors import TraceError
from niwaki.running.tape import tensors_in, with_leaves
from niwaki.running.watching import OperatorMode

META = torch.device("meta")
# products of whole numbers' embeddings: what comes of tokens is computed up to the first of these
PRODUCTS = frozenset({"convolution", "addmm", "mm", "bmm", "baddbmm"})
BY_VALUE = ("linalg", "cholesky", "inverse", "unique", "nonzero")  # they may fail by values


class HollowRun(OperatorMode):
    """A mode under which a model is run on inputs without their numbers.

    Raises:
        TraceError: of itself inside the run, where numbers are needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hollow = set[int]()  # memory that holds no numbers
        self._derived = set[int]()  # memory that holds what comes of the inputs
        self._held: list[torch.UntypedStorage] = []  # that no other takes the place of one of these

    def start(self, inputs: Any) -> None:
        """Say what the model is called with."""
        for tensor in tensors_in(inputs):
            self._mark(tensor, hollow=tensor.is_floating_point())

    def _mark(self, tensor: Tensor, *, hollow: bool) -> None:
        memory = _memory(tensor)
        if memory not in self._derived:
            self._derived.add(memory)
            self._held.append(tensor.untyped_storage())
        if hollow:
            self._hollow.add(memory)

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operands = _tensors(args)
        if kwargs:
            operands += _tensors(kwargs.values())
        memories = [_memory(tensor) for tensor in operands]
        derived = not self._derived.isdisjoint(memories)
        hollow = derived and not self._hollow.isdisjoint(memories)
        if not hollow and not (derived and _name(func) in PRODUCTS):
            result = func(*args, **kwargs)
        elif _is_view(func):
            return func(*args, **kwargs)  # of the same memory, which is marked
        else:
            self._refuse(func, operands, memories)
            return self._hollowed(func, args, kwargs, operands)
        if derived:
            for tensor in _tensors(result if isinstance(result, (tuple, list)) else (result,)):
                self._mark(tensor, hollow=False)
        return result

    def _refuse(self, func: OpOverload, operands: list[Tensor], memories: list[int]) -> None:
        """End the run where numbers would be needed."""
        indices = any(
            memory in self._hollow
            and not (tensor.is_floating_point() or tensor.is_complex())
            and tensor.dtype != torch.bool
            for tensor, memory in zip(operands, memories, strict=True)
        )
        if indices or func.namespace != "aten" or any(word in _name(func) for word in BY_VALUE):
            raise TraceError(f"{func} needs numbers")

    def _hollowed(
        self, func: OpOverload, args: Any, kwargs: dict[str, Any], operands: list[Tensor]
    ) -> Any:
        """The result of an operator without its numbers, in memory that it may write into."""
        rule = _KNOWN.get(func)
        known = rule(*args) if rule is not None and not kwargs else None
        if known is not None:
            for tensor in _tensors((known,) if isinstance(known, Tensor) else known):
                self._mark(_freed(tensor), hollow=True)
            return known
        device = kwargs.get("device") or operands[0].device

        def shape_of(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=META)
            return META if isinstance(leaf, torch.device) else leaf

        meta_args, meta_kwargs = with_leaves((args, kwargs), shape_of)
        result = func(*meta_args, **meta_kwargs)
        given = _written(func, args, kwargs)
        if given:
            for tensor in given:
                self._mark(tensor, hollow=True)
            return given[0] if not isinstance(result, (tuple, list)) else type(result)(given)

        def blank(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            made = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=device)
            self._mark(made, hollow=True)
            return _freed(made)

        outputs = result if isinstance(result, (tuple, list)) else (result,)
        if not any(isinstance(leaf, Tensor) for leaf in outputs):
            raise TraceError(f"{func} asks for numbers")
        return with_leaves(result, blank)


def _alike(value: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(value)


def _itself(value: Tensor, *_: Any) -> Tensor:
    return value


def _batch_norm(value: Tensor, scale: Any, shift: Any, mean: Any, var: Any, *how: Any) -> Any:
    channels = value.shape[1]
    if any(given is not None and len(given) != channels for given in (scale, shift, mean, var)):
        return None  # torch says what is wrong
    statistics = [value.new_empty(channels if how[0] else 0) for _ in range(2)]
    return (torch.empty_like(value), *statistics)


def _layer_norm(value: Tensor, over: list[int], scale: Any, shift: Any, *_: Any) -> Any:
    first = value.ndim - len(over)
    given = (tensor.shape for tensor in (scale, shift) if tensor is not None)
    if any(list(shape) != list(over) for shape in (value.shape[first:], *given)):
        return None
    statistics = [value.new_empty((*value.shape[:first], *[1] * len(over))) for _ in range(2)]
    return (torch.empty_like(value, memory_format=torch.contiguous_format), *statistics)


def _affine(shift: Tensor, rows: Tensor, weight: Tensor, *_: Any) -> Any:
    if rows.shape[-1] != weight.shape[0] or shift.shape != weight.shape[1:]:
        return None
    return rows.new_empty(len(rows), weight.shape[1])


# the meta kernels of these are written in Python, and slower than the operators themselves
_ATEN = torch.ops.aten
_KNOWN: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(
        (
            _ATEN.relu.default,
            _ATEN.gelu.default,
            _ATEN.silu.default,
            _ATEN.sigmoid.default,
            _ATEN.tanh.default,
            _ATEN.hardtanh.default,
            _ATEN.hardswish.default,
            _ATEN.hardsigmoid.default,
            _ATEN.leaky_relu.default,
        ),
        _alike,
    ),
    **dict.fromkeys(
        (
            _ATEN.relu_.default,
            _ATEN.gelu_.default,
            _ATEN.silu_.default,
            _ATEN.sigmoid_.default,
            _ATEN.tanh_.default,
            _ATEN.hardtanh_.default,
            _ATEN.hardswish_.default,
            _ATEN.hardsigmoid_.default,
            _ATEN.leaky_relu_.default,
        ),
        _itself,
    ),
    _ATEN.native_batch_norm.default: _batch_norm,
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.addmm.default: _affine,
}


def _freed(tensor: Tensor) -> Tensor:
    """The same without memory, where memory is dear: main memory is not taken before it is written
    into.
    """
    if tensor.device.type != "cpu":
        tensor.untyped_storage().resize_(0)
    return tensor


def _memory(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        raise TraceError("sparse values are not run by their shapes")
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _tensors(leaves: Iterable[Any]) -> list[Tensor]:
    """All tensors among an operator's arguments, and in lists of them."""
    tensors = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif type(leaf) is list or type(leaf) is tuple:
            tensors += _tensors(leaf)
    return tensors


@cache
def _name(func: OpOverload) -> str:
    return str(func.overloadpacket).rpartition(".")[2].rstrip("_")


@cache
def _is_view(func: OpOverload) -> bool:
    """Whether results are parts of an operand's memory, and nothing is written."""
    returns = [item.alias_info for item in func._schema.returns]
    return bool(returns) and all(info is not None and not info.is_write for info in returns)


@cache
def _writes(func: OpOverload) -> tuple[tuple[int, str], ...]:
    return tuple(
        (place, item.name)
        for place, item in enumerate(func._schema.arguments)
        if item.alias_info is not None and item.alias_info.is_write
    )


def _written(func: OpOverload, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The operands that an operator writes into, and returns."""
    values = (args[at] if at < len(args) else kwargs.get(name) for at, name in _writes(func))
    return [tensor for tensor in values if isinstance(tensor, Tensor)]
