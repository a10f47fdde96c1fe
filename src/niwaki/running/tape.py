"""One run of a model as data: every tensor operator with the parameters, constants and earlier
values that it reads.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from niwaki.running.inputs import modules_of


class Ref:
    """A tensor of the run, by number; of one number there is one object, so that tables of values
    need not call back into Python for a hash.
    """

    __slots__ = ("index",)
    index: int
    _known: dict[int, Ref] = {}  # noqa: RUF012  # shared on purpose

    def __new__(cls, index: int) -> Ref:
        ref = cls._known.get(index)
        if ref is None:
            ref = super().__new__(cls)
            object.__setattr__(ref, "index", index)
            ref = cls._known.setdefault(index, ref)
        return ref

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Ref is shared, so that its {name} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return Ref, (self.index,)

    def __repr__(self) -> str:
        return f"Ref(index={self.index})"


@dataclass(frozen=True)
class Op:
    """One operator call. Tensors in `args` and `kwargs` are `Ref`s; `layer` is the module that made
    the call.
    """

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Ref | None, ...]
    layer: str

    @cached_property
    def name(self) -> str:
        """The operator without its overload: `aten.relu_`."""
        return str(self.func.overloadpacket)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by place or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    def __getitem__(self, name: str) -> Any:
        """An argument by its name in the operator's schema, `op["groups"]`; where the call left it
        out, the schema's default.

        Raises:
            KeyError: the operator takes no argument of that name.
        """
        place, default = self._argument(name)
        return self.arg(place, name, default)

    def takes(self, name: str) -> bool:
        """Whether the operator's schema has an argument of that name."""
        return name in _arguments(self.func)

    def place(self, name: str) -> int:
        """Where an argument stands in the operator's schema: of `convolution`, 1 for "weight".

        Raises:
            KeyError: the operator takes no argument of that name.
        """
        return self._argument(name)[0]

    def replaced(
        self, changes: Mapping[str, Any], args: Sequence[Any] | None = None
    ) -> tuple[Any, ...]:
        """Arguments given by place (the recorded ones, or `args`), some exchanged by name.

        Raises:
            KeyError: the operator takes no argument of that name, or was not given it by place.
        """
        values = list(self.args if args is None else args)
        for name, value in changes.items():
            place = self.place(name)
            if place >= len(values):
                raise KeyError(f"{self.name} was not given {name!r} by place")
            values[place] = value
        return tuple(values)

    def on(self, value: Any) -> Any:
        """What the operator gives for another first argument, all others as they were recorded."""
        return self.func(value, *self.args[1:], **self.kwargs)

    @property
    def first(self) -> Any:
        """Its first argument, whatever the schema calls it (`self`, `input`)."""
        return self.args[0] if self.args else None

    def _argument(self, name: str) -> tuple[int, Any]:
        """The place and the default of an argument."""
        arguments = _arguments(self.func)
        if name not in arguments:
            raise KeyError(f"{self.name} has no argument {name!r}: it takes {', '.join(arguments)}")
        return arguments[name]

    @cached_property
    def tensors(self) -> tuple[Ref, ...]:
        """The values it reads, in order."""
        return tuple(refs_in((self.args, self.kwargs)))

    @cached_property
    def values(self) -> tuple[Ref, ...]:
        """The values that it reads or makes, each once."""
        made = (ref for ref in self.outputs if ref is not None)
        return tuple(dict.fromkeys((*self.tensors, *made)))

    @cached_property
    def draws(self) -> bool:
        """Whether it draws random numbers: not a dropout of none, as that of attention is in
        evaluation.
        """
        if torch.Tag.nondeterministic_seeded not in self.func.tags:
            return False
        arguments = _arguments(self.func)
        idle = any(name in arguments and self[name] == 0 for name in ("p", "dropout_p"))
        return not idle and not any(
            name in arguments and self[name] is False for name in ("train", "training")
        )

    @property
    def result(self) -> Ref:
        """Its first output."""
        first = self.outputs[0]
        assert first is not None
        return first


@cache
def _arguments(func: OpOverload) -> dict[str, tuple[int, Any]]:
    """Name of an argument → its place in the schema and its default, None where it has none."""
    schema = func._schema.arguments
    return {item.name: (place, item.default_value) for place, item in enumerate(schema)}


@dataclass(frozen=True)
class Arrival:
    """The integers that one call of a function of torch's was given, in order, and where they came
    from.

    Attributes:
        start, stop: the operators that the call ran.
        numbers: value and source, an `origins.Source`; None for an integer of unknown source.
    """

    start: int
    stop: int
    numbers: tuple[tuple[int, Any], ...]


@dataclass
class Tape:
    """A recorded run.

    Attributes:
        shapes, dtypes: of each value, by `Ref.index`.
        inputs, outputs: the tensors among the model's arguments and in what it returned.
        output_names: where each output stands in what the model returned: "logits", "0.1"; "" where
            it is all of it.
        parameters: value → name of the parameter or buffer that it is (the first name of a shared
            one).
        constants: value → tensor, for tensors that are none of the above and no operator made.
        kept_tensors: value → attribute, for constants that a module keeps as plain tensors.
        fake: whether the run was on fake tensors.
        by_value: whether the model's code looked at a tensor's values, or sizes came of them, so
            that others might take another path.
        attributes: module → attributes with integers that its code read; not of torch's own layers.
        arrivals: calls that were given integers of known source.
        equalities: sources of two integers that the code compared, and that were equal.
        answers: lines of the user's code that asked for a value of a tensor, and what each was
            given, in order.
        lines: the line of the user's code that called each operator, as "file:line"; "" where
            there is none.
    """

    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    inputs: list[Ref] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    parameters: dict[Ref, str] = field(default_factory=dict)
    constants: dict[Ref, Tensor] = field(default_factory=dict)
    kept_tensors: dict[Ref, str] = field(default_factory=dict)
    fake: bool = True
    by_value: bool = False
    attributes: dict[str, set[str]] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    equalities: list[tuple[Any, Any]] = field(default_factory=list)
    answers: dict[str, list[bool | int | float]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @cached_property
    def draws(self) -> bool:
        """Whether any operator draws random numbers; of a whole tape."""
        return any(op.draws for op in self.ops)

    @cached_property
    def named(self) -> Mapping[str, tuple[Ref, ...]]:
        """Parameter or buffer → the values that it is."""
        refs: dict[str, list[Ref]] = defaultdict(list)
        for ref, name in self.parameters.items():
            refs[name].append(ref)
        return {name: tuple(own) for name, own in refs.items()}

    @cached_property
    def readers(self) -> Mapping[Ref, tuple[int, ...]]:
        """Value → the operators that read it, in order; of a whole tape."""
        return _places(self.ops, lambda op: op.tensors)

    @cached_property
    def makers(self) -> Mapping[Ref, tuple[int, ...]]:
        """Value → the operators that put it out, in order; several where some write in place."""
        return _places(self.ops, lambda op: op.outputs)

    @cached_property
    def last_uses(self) -> Mapping[Ref, int]:
        """Value → the last operator that reads or makes it."""
        return {ref: place for place, op in enumerate(self.ops) for ref in op.values}

    def line(self, position: int) -> str:
        """Where an operator was called, to be put behind its name: " (net.py:12)"; may be empty."""
        line = self.lines[position] if position < len(self.lines) else ""
        return f" ({line})" if line else ""


def _places(
    ops: list[Op], of: Callable[[Op], Iterable[Ref | None]]
) -> Mapping[Ref, tuple[int, ...]]:
    places: dict[Ref, list[int]] = defaultdict(list)
    for place, op in enumerate(ops):
        for ref in dict.fromkeys(of(op)):
            if ref is not None:
                places[ref].append(place)
    return {ref: tuple(at) for ref, at in places.items()}


def refs_in(tree: Any) -> Iterator[Ref]:
    """All values in nested lists, tuples and dicts."""
    if type(tree) is Ref:
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from refs_in(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from refs_in(item)


def with_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same arguments of an operator, every leaf of nested lists, tuples and dicts changed.

    As `tree_map` of torch's, for what operators take: quicker, as it asks no registry of types.
    """
    kind = type(tree)
    if kind is list or kind is tuple:
        items = [with_leaves(item, change) for item in tree]
        return items if kind is list else tuple(items)
    if kind is dict:
        return {name: with_leaves(item, change) for name, item in tree.items()}
    return change(tree)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in what a model takes or returns: nested containers, dataclasses and plain
    objects.
    """
    for _, tensor in named_tensors_in(tree):
        yield tensor


def named_tensors_in(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The same, each with where it stands: `past_key_values.layers.0.keys`."""
    if isinstance(tree, Tensor):
        yield path, tree
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, (list, tuple, set)):
        items = enumerate(tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        items = ((item.name, getattr(tree, item.name)) for item in dataclasses.fields(tree))
    elif _is_record(tree):
        items = vars(tree).items()
    for name, item in items:
        yield from named_tensors_in(item, f"{path}.{name}" if path else str(name))


def _is_record(tree: Any) -> bool:
    """Whether a value is an object of somebody's class that holds attributes (a distribution, a
    namespace).
    """
    return (
        hasattr(tree, "__dict__") and not isinstance(tree, (type, nn.Module)) and not callable(tree)
    )


def named_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, a shared one once under its first name."""
    named: dict[str, Tensor] = {}
    modules = [
        (f"{name}." if name else "", module.__dict__) for name, module in modules_of(model).items()
    ]
    for table in ("_parameters", "_buffers"):
        seen = set[int]()
        for prefix, own in modules:
            for name, tensor in own[table].items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    named[prefix + name] = tensor
    return named


def tensor_at(model: nn.Module, name: str) -> Tensor:
    """A parameter by its name, or a weight that the layer computes from parameters (weight_norm),
    with gradients to these.
    """
    layer, _, own = name.rpartition(".")
    value: Tensor = getattr(model.get_submodule(layer), own)
    return value


def first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer → the one that `named_state` knows it by: a shared one
    has several.
    """
    first: dict[int, str] = {}
    pairs = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: first.setdefault(id(tensor), name) for name, tensor in pairs}
