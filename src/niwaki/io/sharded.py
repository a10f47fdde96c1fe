"""Weights too large for the memory: read tensor by tensor from safetensors shards, cut, and written
shard by shard.

The model itself stays on the meta device, where it has shapes and no values:

    with torch.device("meta"):
        model = Llama(config)
    graph = niwaki.trace(model, inputs)
    weights = niwaki.open_weights("llama-7b")
    plan = niwaki.select(graph, niwaki.score(graph, "l2", weights=weights), 0.5)
    niwaki.shrink_files(graph, plan, weights, "llama-3b")
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from niwaki.core.errors import CheckpointError, SurgeryError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.core.records import staged_folder, write_text_atomic
from niwaki.graph import Graph
from niwaki.methods.base.cut import Cut
from niwaki.proof.structure import check_structure
from niwaki.running import first_names
from niwaki.surgery import cut_tensors, follow_config, shrink, size_guesses

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PLAN = "plan.json"
CONFIG = "config.json"


class ShardedWeights(Mapping[str, Tensor]):
    """Tensors by name out of safetensors files; each is read when it is asked for, and not kept.

    Attributes:
        folder: where the files lie.
        files: tensor → file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the headers.

        Args:
            path: a .safetensors file, or a folder with one or with several and an index.

        Raises:
            CheckpointError: no such files, a file is damaged, or the index names what is not there.
        """
        place = Path(path)
        self.folder = place if place.is_dir() else place.parent
        self.files = (
            self._indexed() if place.is_dir() and (place / INDEX).is_file() else self._listed(place)
        )
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, str] = {}
        for file in sorted(set(self.files.values())):
            self._read_header(file)

    def _indexed(self) -> dict[str, Path]:
        try:
            table = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {str(name): self.folder / str(file) for name, file in table.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{self.folder / INDEX} cannot be read: {error}") from error
        for name, file in files.items():
            if file.parent != self.folder or not file.is_file():
                raise CheckpointError(
                    f"{self.folder / INDEX} says that {name} is in {file.name}, which is not there"
                )
        return files

    def _listed(self, place: Path) -> dict[str, Path]:
        files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
        if not files or not files[0].is_file():
            raise CheckpointError(f"{place}: no .safetensors file there")
        file_of: dict[str, Path] = {}
        for file in files:
            with _opened(file) as content:
                for name in content.keys():  # noqa: SIM118  # not a dict
                    if name in file_of:
                        raise CheckpointError(
                            f"{name} is in {file_of[name].name} and in {file.name}; which one "
                            "holds?"
                        )
                    file_of[name] = file
        return file_of

    def _read_header(self, file: Path) -> None:
        with _opened(file) as content:
            for name in content.keys():  # noqa: SIM118  # not a dict
                if self.files.get(name) == file:
                    piece = content.get_slice(name)
                    self._shapes[name], self._dtypes[name] = (
                        tuple(piece.get_shape()),
                        piece.get_dtype(),
                    )
        for name, other in self.files.items():
            if other == file and name not in self._shapes:
                raise CheckpointError(f"{file} holds no {name}, though its index says so")

    def __getitem__(self, name: str) -> Tensor:
        with _opened(self.files[name]) as content:
            tensor: Tensor = content.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, from the headers."""
        return self._shapes

    def nbytes(self, name: str, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of another shape and this one's numbers."""
        return int(torch.Size(shape).numel()) * _BYTES.get(self._dtypes[name], 8)


_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} cannot be read: {error}; copy or download it again"
        ) from error


def open_weights(path: str | os.PathLike[str]) -> ShardedWeights:
    """Weights in safetensors files, for `score(weights=…)` and `shrink_files`: read tensor by
    tensor, as they are asked for.

    Args:
        path: a .safetensors file, or a folder with one or with several and an index (as
            `save_pretrained` writes).

    Raises:
        CheckpointError: no such files, a file is damaged, or the index names what is not there.
    """
    return ShardedWeights(path)


def shrink_files(
    graph: Graph,
    plan: Plan,
    weights: ShardedWeights,
    folder: str | os.PathLike[str],
    *,
    mixings: Mapping[str, Mixing] | None = None,
    shard_bytes: int = 2**30,
    overwrite: bool = False,
) -> Plan:
    """Cut weights in files without the whole model in memory: one tensor is read at a time, one
    shard is held.

    The model of the graph, on the meta device, is shrunk first and run on shapes
    (`check_structure`). Beside the weights the folder gets plan.json, and a copy of the other small
    files beside the original weights; a config.json with the new sizes where the model's config can
    state them, so that the library that it belongs to loads the folder.

    Args:
        graph: of the model on the meta device.
        shard_bytes: a shard is closed before it grows beyond this, if it holds more than one
            tensor.
        overwrite: replace an existing folder.

    Returns:
        the plan with the sizes that the model's code and config keep.

    Raises:
        CheckpointError: the files hold other tensors than the model.
        SurgeryError: the smaller model does not run, or its sizes are not those of the plan.
        OutputError: the folder exists and `overwrite` is not set, or it cannot be written.
    """
    names = _names(graph, weights)
    plan, stated = _sized(graph, plan)
    shapes = graph.shapes_after(plan.kept)
    shards = _shards(weights, {name: shapes[known] for name, known in names.items()}, shard_bytes)
    with staged_folder(Path(folder), overwrite=overwrite) as stage:
        for file, members in shards.items():
            cut = cut_tensors(
                Cut(graph, plan, mixings or {}), {names[name]: weights[name] for name in members}
            )
            ready = {name: cut[names[name]] for name in members}
            save_file(ready, str(stage / file), metadata={"format": "pt"})
        if len(shards) > 1:
            table = {name: file for file, members in shards.items() for name in members}
            total = sum(weights.nbytes(name, shapes[known]) for name, known in names.items())
            write_text_atomic(
                stage / INDEX,
                json.dumps({"metadata": {"total_size": total}, "weight_map": table}, indent=1),
            )
        write_text_atomic(stage / PLAN, plan.to_json())
        _copy_beside(weights.folder, stage, plan if stated else None)
    return plan


def _names(graph: Graph, weights: ShardedWeights) -> dict[str, str]:
    """Names in the files → names that the graph knows them by; a shared tensor has one."""
    known = first_names(graph.model)
    state = graph.state
    missing = {known[name] for name in graph.model.state_dict()} - {
        known.get(name) for name in weights
    }
    extra = [name for name in weights if name not in known]
    if missing or extra:
        what = (
            f"no {sorted(missing)[0]}" if missing else f"a {extra[0]} that the model does not have"
        )
        raise CheckpointError(f"{weights.folder} is of another model: it holds {what}")
    for name in weights:
        wanted = tuple(state[known[name]].shape)
        if weights.shapes[name] != wanted:
            raise CheckpointError(
                f"{name} is {weights.shapes[name]} in the files and {wanted} in the model"
            )
    return {name: known[name] for name in weights}


def _sized(graph: Graph, plan: Plan) -> tuple[Plan, bool]:
    """The plan with its sizes, tried on the meta device; and whether the model's config states
    them.
    """
    guesses = size_guesses(graph, plan) if plan.sizes is None else iter([plan.sizes])
    failure: SurgeryError | None = None
    for sizes in guesses:
        sized = replace(plan, sizes=sizes)
        smaller = shrink(Cut(graph, sized))
        try:
            check_structure(graph, sized, smaller)
        except SurgeryError as error:
            failure = failure or error
            continue
        stated, _ = follow_config(smaller, graph, sized)
        return stated, stated is not sized
    assert failure is not None
    raise failure


def _shards(
    weights: ShardedWeights, shapes: Mapping[str, tuple[int, ...]], limit: int
) -> dict[str, list[str]]:
    """File → its tensors, in their order in the source, by the sizes that they will have."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name in weights:
        size = weights.nbytes(name, shapes[name])
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {
        f"model-{i:05d}-of-{len(groups):05d}.safetensors": members
        for i, members in enumerate(groups, 1)
    }


def _copy_beside(source: Path, stage: Path, plan: Plan | None) -> None:
    """Tokenizers and configs, as they are but for sizes that the plan states for the config."""
    for file in source.iterdir():
        if (
            file.is_file()
            and file.suffix in (".json", ".txt", ".model")
            and file.name not in (INDEX, PLAN)
        ):
            shutil.copyfile(file, stage / file.name)
    config = stage / CONFIG
    if plan is None or not config.is_file():
        return
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{source / CONFIG} is not JSON: {error}") from error
    for path, size in (plan.sizes or {}).get("", {}).items():
        owner, (_, *way, name) = content, path.split(".")
        for step in way:
            owner = owner.setdefault(step, {})
        if path.startswith("config."):
            owner[name] = list(size) if isinstance(size, tuple) else size
    write_text_atomic(config, json.dumps(content, indent=2))
