"""What a user leaves whole, in the words that they have for it: names, patterns, modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from niwaki.core.errors import SettingError
from niwaki.graph import Graph

Layers = str | nn.Module | Sequence[str | nn.Module]


def skipped(graph: Graph, skip: Layers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Patterns of groups that stay whole, and notes on what would have stayed whole anyway.

    A module stands for all layers in it. A layer that has no channels to prune is no mistake to
    name; one that the model does not have is, and keeps its pattern, so that it is refused.

    Raises:
        SettingError: a module that is not part of the model.
    """
    patterns: list[str] = []
    notes: list[str] = []
    for entry in [skip] if isinstance(skip, (str, nn.Module)) else skip:
        asked = [entry] if isinstance(entry, str) else _names(graph.original, entry)
        matching = [pattern for pattern in asked if _matches(pattern, _prunable(graph))]
        patterns += matching
        if not matching and not any(_matches(one, _layers(graph.original)) for one in asked):
            patterns += asked
        elif not matching:
            notes.append(f"skip={asked[0]!r}: nothing of it could be pruned, so it stays anyway")
    return tuple(patterns), tuple(notes)


def _names(model: nn.Module, part: nn.Module) -> list[str]:
    """Patterns of a module and of what is in it."""
    if not isinstance(part, nn.Module):
        raise SettingError(f"skip= takes names, patterns and modules; got a {type(part).__name__}")
    names = [name for name, module in model.named_modules() if module is part]
    if not names:
        raise SettingError(
            f"skip= has a {type(part).__name__} that is not part of the model; give a module of "
            "the model itself, or its name"
        )
    return [pattern for name in names for pattern in ([name, f"{name}.*"] if name else ["*"])]


def _prunable(graph: Graph) -> Iterable[str]:
    return (layer for group in graph.groups for layer in (*group.layers, group.name))


def _layers(model: nn.Module) -> Iterable[str]:
    return (name for name, _ in model.named_modules() if name)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)
