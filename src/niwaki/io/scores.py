"""Scores on disk: one safetensors file that later commands reuse, without running the network
again.

It holds a criterion's score of every unit, and where the criterion is MINT the dependency of every
pair of layers, so that one file serves the pruning of units and the trimming of blocks, at any
budget.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from niwaki.core.errors import CheckpointError
from niwaki.core.records import write_bytes_atomic
from niwaki.graph import Graph
from niwaki.graph.pairs import layer_pairs
from niwaki.methods.mint._layer_dependencies import Dependency

KIND = "niwaki scores 1"
PARTS = ("values", "child_group", "parent_group", "dead_children", "dead_parents")


@dataclass(frozen=True, eq=False)
class Scores:
    """What a scoring of a network came to.

    Attributes:
        criterion: its notation.
        units: group → (width,), float64.
        dependencies: of the pairs of layers, where the criterion has some.
        settings: what else a reader should know, as JSON holds it.
    """

    criterion: str
    units: Mapping[str, Tensor]
    dependencies: Sequence[Dependency] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def save_scores(scores: Scores, path: str | os.PathLike[str]) -> None:
    """Write scores to a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {f"units/{name}": values.contiguous() for name, values in scores.units.items()}
    for item in scores.dependencies:
        for part in PARTS:
            tensors[f"pairs/{item.pair.weight}/{part}"] = getattr(item, part).contiguous()
    head = {
        "kind": KIND,
        "criterion": scores.criterion,
        "settings": json.dumps(dict(scores.settings)),
    }
    write_bytes_atomic(Path(path), save(tensors, head))


def holds_scores(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that `save_scores` wrote, so that it may be replaced by another."""
    try:
        with safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get("kind") == KIND
    except (SafetensorError, OSError, ValueError):
        return False


def load_scores(path: str | os.PathLike[str], graph: Graph) -> Scores:
    """Read scores of a graph's model back.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; niwaki score writes one")
    try:
        with safe_open(str(path), "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole file of scores ({error}); score the network again"
        ) from error
    if head.get("kind") != KIND:
        raise CheckpointError(
            f"{path} holds no scores that this niwaki reads; niwaki score writes such a file"
        )
    units = {
        name.removeprefix("units/"): values
        for name, values in tensors.items()
        if name.startswith("units/")
    }
    widths = {group.name: group.width for group in graph.groups}
    if {name: len(values) for name, values in units.items()} != widths:
        name = next(iter(sorted(set(units) ^ set(widths))), None) or next(
            n for n in widths if len(units[n]) != widths[n]
        )
        raise CheckpointError(f"{path} is of another network: the two differ at group {name!r}")
    return Scores(
        head["criterion"], units, _dependencies(tensors, graph, path), json.loads(head["settings"])
    )


def _dependencies(tensors: Mapping[str, Tensor], graph: Graph, path: Path) -> list[Dependency]:
    dependencies = []
    for pair in layer_pairs(graph):
        parts = [tensors.get(f"pairs/{pair.weight}/{part}") for part in PARTS]
        if parts[0] is None:
            continue
        if any(part is None for part in parts):
            raise CheckpointError(
                f"{path} is damaged: it lacks parts of {pair.name}; score the network again"
            )
        values, child_group, parent_group, *dead = (part for part in parts if part is not None)
        sides = (
            (child_group, pair.writes.count, values.shape[0]),
            (parent_group, pair.reads.count, values.shape[1]),
        )
        if any(
            len(group) != count or int(group.max()) + 1 != groups for group, count, groups in sides
        ):
            raise CheckpointError(f"{path} is of another network: the two differ at {pair.name}")
        dependencies.append(
            Dependency(
                pair, values, child_group, parent_group, *(units.to(torch.int64) for units in dead)
            )
        )
    return dependencies
