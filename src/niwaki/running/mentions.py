"""Which of its attributes the forward of a module mentions where an input may lead.

Read from the source, as no run shows what it does not reach. Of a test of the module's own settings
(`if self.kind == "a"`) only the side that they choose is read: no input changes which way that
goes.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from torch import nn

_PLAIN: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (len, isinstance, hasattr, getattr, any, all, bool, int, tuple, list, type)
}
_LOOPED = {*_PLAIN, "range", "enumerate", "zip", "reversed"}
_COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.In: lambda one, others: one in others,
    ast.NotIn: lambda one, others: one not in others,
}
_BY_NAME = {"getattr", "get_submodule", "get_parameter", "_modules", "_parameters"}


@dataclass(frozen=True)
class Mention:
    """An attribute that is named.

    Attributes:
        name: of the attribute, or the pattern of several (`head_*`) where code puts names together:
            `getattr(self, f"head_{task}")`.
        picked: it is indexed by what may come of the inputs: `self.heads[task]`.
    """

    name: str
    picked: bool = False

    @property
    def several(self) -> bool:
        """Whether it is a pattern."""
        return "*" in self.name


def mentions(module: nn.Module) -> frozenset[Mention]:
    """What `forward` mentions, itself or in methods of the module that it calls; nothing for
    torch's own classes, and for classes without a source.
    """
    methods = {
        name: method
        for parent in reversed(type(module).__mro__)
        if parent not in nn.Module.__mro__ and not parent.__module__.startswith("torch.")
        for name, method in vars(parent).items()
        if inspect.isfunction(method)
    }
    named: set[Mention] = set()
    waiting, seen = ["forward"], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name in methods:
            seen.add(name)
            own = _in_source(methods[name], module)
            named |= own
            waiting += [mention.name for mention in own]
    return frozenset(named)


@cache
def _parsed(method: FunctionType) -> ast.FunctionDef | None:
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(method))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    return function if isinstance(function, ast.FunctionDef) and function.args.args else None


def _in_source(method: FunctionType, module: nn.Module) -> set[Mention]:
    function = _parsed(method)
    if function is None:
        return set()
    reader = _Reader(module, function.args.args[0].arg, set())
    loops = [loop for loop in ast.walk(function) if isinstance(loop, ast.For | ast.comprehension)]
    for loop in loops:
        if reader.goes_through(loop):
            reader.counted.update(reader.names(loop.target))
    for loop in loops:
        if not reader.goes_through(loop):
            reader.counted.difference_update(reader.names(loop.target))
    return set(reader.statements(function.body))


@dataclass(frozen=True)
class _Reader:
    """Walks one method.

    Attributes:
        module: whose method it is.
        me: what it calls the module: "self".
        counted: variables of loops that go through all, whatever the inputs.
    """

    module: nn.Module
    me: str
    counted: set[str]

    def statements(self, body: Sequence[ast.stmt]) -> Iterator[Mention]:
        for statement in body:
            side = self._side(statement) if isinstance(statement, ast.If) else None
            if side is None:
                yield from self._within(statement)
                continue
            yield from self.statements(side)
            if side and isinstance(side[-1], ast.Return | ast.Raise):
                return  # what follows is its other side

    def _side(self, test: ast.If) -> list[ast.stmt] | None:
        """The side of a test that the module's settings choose; None where they do not."""
        chosen = self._settled(test.test)
        return None if chosen is None else test.body if chosen else test.orelse

    def _here(self, node: ast.AST) -> Iterator[Mention]:
        """What a node mentions itself, without those in it."""
        if (name := self._attribute(node)) is not None:
            yield Mention(name)
        if isinstance(node, ast.Subscript) and (name := self._attribute(node.value)) is not None:
            yield Mention(name, picked=not self._counts(node.slice))
        if isinstance(node, ast.For) and not self.goes_through(node):
            for part in ast.walk(node.iter):
                if (name := self._attribute(part)) is not None:
                    yield Mention(name, picked=True)
        if isinstance(node, ast.Assign) and (name := self._attribute(node.value)) is not None:
            yield Mention(name, picked=True)  # known by another name from here on
        if (spelled := self._looked_up(node)) is not None and not (
            self.names(spelled) and self._counts(spelled)
        ):
            yield Mention(_pattern(spelled))

    def _within(self, node: ast.AST) -> Iterator[Mention]:
        yield from self._here(node)
        if isinstance(node, ast.IfExp) and (chosen := self._settled(node.test)) is not None:
            yield from self._within(node.body if chosen else node.orelse)
            return
        for _, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            if children and isinstance(children[0], ast.stmt):
                yield from self.statements(children)
            else:
                for child in children:
                    if isinstance(child, ast.AST):
                        yield from self._within(child)

    def _attribute(self, node: ast.AST | None) -> str | None:
        """The name of an attribute of the module, or of one of its attributes: "encoder.layers"."""
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name):
            return node.attr if node.value.id == self.me else None
        around = self._attribute(node.value)
        return None if around is None else f"{around}.{node.attr}"

    def goes_through(self, loop: ast.For | ast.comprehension) -> bool:
        """Whether a loop runs as often for all inputs: over what the module holds, with no way out
        that hangs on more than the module.
        """
        if not self.names(loop.iter) <= {self.me, *_LOOPED, *self.counted}:
            return False
        if isinstance(loop, ast.comprehension):
            return not loop.ifs
        return not any(
            isinstance(way_out, ast.Break | ast.Continue | ast.Return)
            for test in ast.walk(loop)
            if isinstance(test, ast.If) and self._settled(test.test) is None
            for way_out in ast.walk(test)
        )

    def _counts(self, index: ast.AST) -> bool:
        """Whether an index is the module's own, or of a loop over all."""
        return self.names(index) <= {self.me, *self.counted}

    def _looked_up(self, node: ast.AST) -> ast.expr | None:
        """What code that looks an attribute up by its name says for the name:
        `getattr(self, name)`, `self.get_submodule(name)`, `self._modules[name]`.
        """
        if isinstance(node, ast.Subscript) and self._attribute(node.value) in _BY_NAME:
            return node.slice
        if not isinstance(node, ast.Call):
            return None
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) > 1:
            whose, name = node.args[:2]
            return name if isinstance(whose, ast.Name) and whose.id == self.me else None
        return node.args[0] if node.args and self._attribute(node.func) in _BY_NAME else None

    def _settled(self, test: ast.expr) -> bool | None:
        """What a test gives that names nothing but the module itself, as in
        `self.scale is not None`; None of others, and of what training mode decides.
        """
        try:
            return bool(self._value(test))
        except Exception:  # whatever an attribute of the user's raises when it is read
            return None

    def _value(self, node: ast.expr) -> Any:
        """The value of an expression of the module's attributes.

        Raises:
            LookupError: there is more to it.
        """
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.module if node.id == self.me else _PLAIN[node.id]
        if isinstance(node, ast.Attribute) and node.attr != "training":
            return getattr(self._value(node.value), node.attr)
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self._value(node.operand)
        if isinstance(node, ast.BoolOp):
            decide = all if isinstance(node.op, ast.And) else any
            return decide([bool(self._value(part)) for part in node.values])
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            compare = _COMPARED[type(node.ops[0])]
            return compare(self._value(node.left), self._value(node.comparators[0]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._value(node.func)(*map(self._value, node.args))
        raise LookupError

    @staticmethod
    def names(node: ast.AST) -> set[str]:
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _pattern(spelled: ast.expr) -> str:
    """What is known of a text: its fixed parts, "*" for all else.

    >>> _pattern(ast.parse("f'head_{task}'", mode="eval").body)
    'head_*'
    """
    if isinstance(spelled, ast.Constant):
        return str(spelled.value)
    if isinstance(spelled, ast.JoinedStr):
        return "".join(map(_pattern, spelled.values))
    if isinstance(spelled, ast.BinOp) and isinstance(spelled.op, ast.Add):
        return _pattern(spelled.left) + _pattern(spelled.right)
    return "*"
