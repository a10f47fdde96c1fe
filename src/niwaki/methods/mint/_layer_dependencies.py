"""The dependency of every group of a child's channels on every group of its parent's, for all pairs
of layers of a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from niwaki.core.errors import SettingError
from niwaki.core.records import write_text_atomic
from niwaki.core.work import Workers
from niwaki.graph.pairs import LayerPair
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.mint.activations import Sampling, observe
from niwaki.methods.mint.by_layer import PairSettings, of_layer, refuse_unmatched
from niwaki.methods.mint.mutual_information import LEAST, MEMORY, dependencies
from niwaki.methods.mint.resampling import Resampling


@dataclass(frozen=True)
class Estimation:
    """How dependencies are estimated.

    Attributes:
        groups: into how many contiguous groups a layer's channels are put; of sizes that differ by
            one where it does not divide them, and as many as there are channels where these are
            fewer.
        child_groups: the same for the child's side; None: as many as for the parent's.
        sampling: how many inputs are drawn.
        resampling: see `conditional_mutual_information`.
        workers: who does it; the numbers are the same.
        folder: where finished layers are kept, so that a scoring that was interrupted goes on;
            None: nowhere.
        by_layer: pattern on the child's name → what its pair has of its own: other groups, other
            samples; of several patterns that match, the last one counts.
    """

    groups: int = 8
    child_groups: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    resampling: Resampling = "nearest"
    workers: Workers = field(default_factory=Workers)
    folder: Path | None = None
    by_layer: Mapping[str, PairSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("groups", self.groups), ("child_groups", self.child_groups)):
            if value is not None and value < 1:
                raise SettingError(f"{name} must be at least 1; got {value}")

    def groups_of(self, child: str) -> tuple[int, int]:
        """Into how many groups the child's and its parent's channels go."""
        own = of_layer(self.by_layer, child) or PairSettings()
        parents = own.groups or self.groups
        return own.child_groups or own.groups or self.child_groups or parents, parents

    def sampling_of(self, child: str) -> Sampling:
        """How many inputs are drawn for the pair of a child."""
        own = of_layer(self.by_layer, child) or PairSettings()
        common = self.sampling
        return Sampling(own.per_class or common.per_class, own.samples or common.samples)


@dataclass(frozen=True, eq=False)
class Dependency:
    """What one pair of layers came to.

    Attributes:
        values: float64 (child groups, parent groups) in [0, 1].
        child_group, parent_group: int64, the group of every watched unit.
        dead_children, dead_parents: watched units that say nothing: always the same, or not finite.
            They count for nothing in the values of their group; a group of dead units alone has
            zeros.
    """

    pair: LayerPair
    values: Tensor
    child_group: Tensor
    parent_group: Tensor
    dead_children: Tensor
    dead_parents: Tensor

    @property
    def remarks(self) -> list[str]:
        """What a reader must know."""
        said = []
        for layer, dead in (
            (self.pair.child, self.dead_children),
            (self.pair.parent, self.dead_parents),
        ):
            if len(dead):
                said.append(
                    f"{layer}: {len(dead)} dead units (constant or not finite on all samples) "
                    f"score 0: {_listed(dead)}"
                )
        for layer, group in (
            (self.pair.child, self.child_group),
            (self.pair.parent, self.parent_group),
        ):
            sizes = sorted(set(torch.bincount(group).tolist()))
            if len(sizes) > 1:
                said.append(
                    f"{layer}: {len(group)} units in {int(group.max()) + 1} groups of {sizes[0]} "
                    f"or {sizes[-1]}"
                )
        return said


def _listed(units: Tensor, most: int = 8) -> str:
    return ", ".join(map(str, units[:most].tolist())) + (", …" if len(units) > most else "")


def layer_dependencies(
    evidence: Evidence, pairs: Sequence[LayerPair], estimation: Estimation
) -> list[Dependency]:
    """Watch the network and estimate all pairs.

    Raises:
        SettingError: no calibration inputs, a class without any, too few samples, or a layer
            without a finite activation.
    """
    refuse_unmatched(estimation.by_layer, (pair.child for pair in pairs), "by_layer")
    seed = int(torch.randint(2**40, (1,), generator=evidence.generator))
    seen = _observed(evidence, pairs, estimation)
    drafts = {pair.weight: _Draft.of(pair, *seen[pair.weight], estimation) for pair in pairs}
    # several processes would share one accelerator; alone, estimates run where the model is
    alone = estimation.workers == Workers()
    device = (
        next((str(tensor.device) for tensor in evidence.graph.model.parameters()), "cpu")
        if alone
        else "cpu"
    )
    values = _estimated(drafts, seed, estimation, device)
    return [drafts[pair.weight].finished(values[pair.weight]) for pair in pairs]


def _observed(
    evidence: Evidence, pairs: Sequence[LayerPair], estimation: Estimation
) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight → activations of its child and parent; pairs of one sampling share their inputs."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for sampling in dict.fromkeys(estimation.sampling_of(pair.child) for pair in pairs):
        those = [pair for pair in pairs if estimation.sampling_of(pair.child) == sampling]
        sites = [site for pair in those for site in (pair.writes, pair.reads)]
        values = observe(evidence, sites, sampling)
        if len(values[0]) < LEAST:
            raise SettingError(
                f"{len(values[0])} samples cannot be split in three; draw at least {LEAST}, better "
                "hundreds"
            )
        for index, pair in enumerate(those):
            seen[pair.weight] = values[2 * index], values[2 * index + 1]
    return seen


@dataclass(frozen=True, eq=False)
class _Draft:
    """A pair before its estimate: activations by group, with constants in the place of dead
    units.
    """

    pair: LayerPair
    children: list[Tensor]
    parents: list[Tensor]
    child_group: Tensor
    parent_group: Tensor
    dead_children: Tensor
    dead_parents: Tensor

    @classmethod
    def of(
        cls, pair: LayerPair, children: Tensor, parents: Tensor, estimation: Estimation
    ) -> _Draft:
        child, dead_children = _alive(children, pair.child)
        parent, dead_parents = _alive(parents, pair.parent)
        child_groups, parent_groups = estimation.groups_of(pair.child)
        child_group = contiguous_groups(child.shape[1], child_groups)
        parent_group = contiguous_groups(parent.shape[1], parent_groups)
        return cls(
            pair,
            [child[:, child_group == number] for number in range(int(child_group.max()) + 1)],
            [parent[:, parent_group == number] for number in range(int(parent_group.max()) + 1)],
            child_group,
            parent_group,
            dead_children,
            dead_parents,
        )

    def finished(self, values: Tensor) -> Dependency:
        """With its values; groups that are dead as a whole depend on nothing."""
        values = values.clone()
        values[_all_of(self.child_group, self.dead_children)] = 0
        values[:, _all_of(self.parent_group, self.dead_parents)] = 0
        return Dependency(
            self.pair,
            values,
            self.child_group,
            self.parent_group,
            self.dead_children,
            self.dead_parents,
        )


def contiguous_groups(units: int, groups: int) -> Tensor:
    """The group of every unit: runs whose lengths differ by one at most; int64 (units,)."""
    parts = torch.tensor_split(torch.arange(units), min(groups, units))
    return torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])


def _alive(values: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Activations with zeros for units that say nothing, and which those are."""
    finite = torch.isfinite(values).all(0)
    if not bool(finite.any()):
        raise SettingError(
            f"no unit of {layer} has finite activations on the calibration inputs; look at these"
        )
    constant = (values == values[:1]).all(0)
    dead = constant | ~finite
    return torch.where(dead, torch.zeros_like(values), values), dead.nonzero().squeeze(1)


def _all_of(group: Tensor, dead: Tensor) -> Tensor:
    """Groups none of whose units is alive."""
    alive = torch.ones(len(group), dtype=torch.int64)
    alive[dead] = 0
    return torch.zeros(int(group.max()) + 1, dtype=torch.int64).index_add_(0, group, alive) == 0


Piece = tuple[list[Any], list[Any], int, Resampling, str]


def estimate_piece(
    children: list[Any], parents: list[Any], seed: int, resampling: Resampling, device: str
) -> list[list[float]]:
    """The dependencies of one pair of layers, from arrays, as plain numbers: what is sent to a
    worker and comes back.
    """
    values = dependencies(
        [torch.tensor(child, device=device) for child in children],
        [torch.tensor(parent, device=device) for parent in parents],
        generator=torch.Generator().manual_seed(seed),
        resampling=resampling,
        memory=MEMORY,
    )
    return values.tolist()


def _estimated(
    drafts: dict[str, _Draft], seed: int, estimation: Estimation, device: str
) -> dict[str, Tensor]:
    """The values of all pairs, by weight; finished ones come from the folder and go there."""
    pieces: dict[str, Piece] = {}
    results: dict[str, Tensor] = {}
    files: dict[str, Path] = {}
    for number, (weight, draft) in enumerate(drafts.items()):
        arrays = [[part.numpy() for part in side] for side in (draft.children, draft.parents)]
        piece = (arrays[0], arrays[1], seed + number, estimation.resampling, device)
        if estimation.folder is not None:
            files[weight] = estimation.folder / f"{_fingerprint(piece)}.json"
            if files[weight].is_file():
                results[weight] = _read(files[weight])
                continue
        pieces[weight] = piece
    for weight, values in estimation.workers.run(estimate_piece, pieces):
        results[weight] = torch.tensor(values, dtype=torch.float64)
        if weight in files:
            files[weight].parent.mkdir(parents=True, exist_ok=True)
            write_text_atomic(files[weight], json.dumps({"layer": weight, "values": values}))
    return results


def _read(path: Path) -> Tensor:
    try:
        return torch.tensor(
            json.loads(path.read_text(encoding="utf-8"))["values"], dtype=torch.float64
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"{path} is damaged ({error}); delete it, and the layer that it was of is done again"
        ) from error


def _fingerprint(piece: Piece) -> str:
    """Of everything that a result depends on; where it is computed is nothing of that."""
    children, parents, seed, resampling, _ = piece
    digest = hashlib.sha256(f"{seed} {resampling}".encode())
    for side in (children, parents):
        for part in side:
            digest.update(f"{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:24]
