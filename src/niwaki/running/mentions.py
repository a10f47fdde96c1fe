"""Which of its attributes the forward of a class mentions where an input may lead.

Read from the source, as no run shows what it does not reach. What stands behind a test of the
object's own settings (`if self.kind == "a"`) is left out: no input changes which way that goes.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import FunctionType

from torch import nn

_PLAIN = {"len", "isinstance", "hasattr", "getattr", "any", "all", "bool"}


@dataclass(frozen=True)
class Mention:
    """An attribute that is named.

    Attributes:
        picked: it is indexed by what may come of the inputs: `self.heads[task]`.
    """

    name: str
    picked: bool = False


@cache
def _mentions(kind: type) -> frozenset[Mention]:
    methods = {
        name: method
        for parent in reversed(kind.__mro__)
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
            own = _in_source(methods[name])
            named |= own
            waiting += [mention.name for mention in own]
    return frozenset(named)


def mentions(kind: type) -> frozenset[Mention]:
    """What `forward` mentions, itself or in methods of the class that it calls; nothing for torch's
    own classes, and for classes without a source.
    """
    return _mentions(kind)


def _in_source(method: FunctionType) -> set[Mention]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return set()
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or not function.args.args:
        return set()
    counted = {
        name.id
        for loop in ast.walk(function)
        if isinstance(loop, ast.For | ast.comprehension)
        for name in ast.walk(loop.target)
        if isinstance(name, ast.Name)
    }
    return set(_Reader(function.args.args[0].arg, counted).statements(function.body))


@dataclass(frozen=True)
class _Reader:
    """Walks one method.

    Attributes:
        me: what it calls the object: "self".
        counted: variables of its loops.
    """

    me: str
    counted: set[str]

    def statements(self, body: Sequence[ast.stmt]) -> Iterator[Mention]:
        for statement in body:
            if not isinstance(statement, ast.If) or not self._is_settled(statement.test):
                yield from self._within(statement)
            elif isinstance(statement.body[-1], ast.Return | ast.Raise):
                return  # what follows is its other side

    def _within(self, node: ast.AST) -> Iterator[Mention]:
        if (name := self._attribute(node)) is not None:
            yield Mention(name)
        if isinstance(node, ast.Subscript) and (name := self._attribute(node.value)) is not None:
            yield Mention(name, picked=not self._names(node.slice) <= {self.me, *self.counted})
        if isinstance(node, ast.IfExp) and self._is_settled(node.test):
            return
        for _, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            if children and isinstance(children[0], ast.stmt):
                yield from self.statements(children)
            else:
                for child in children:
                    if isinstance(child, ast.AST):
                        yield from self._within(child)

    def _attribute(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.attr if node.value.id == self.me else None
        return None

    def _is_settled(self, test: ast.expr) -> bool:
        """Whether a test names nothing but the object itself: `self.scale is not None`."""
        return self._names(test) <= {self.me, *_PLAIN}

    @staticmethod
    def _names(node: ast.AST) -> set[str]:
        return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
