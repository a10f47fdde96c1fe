"""A pruned network on disk: one folder of JSON and safetensors, read without running code from it.
No pickle.

    plan.json               how the original becomes the pruned network (see blueprint)
    model.safetensors       its weights, a plain state dict
    buffers.safetensors     buffers that a state dict leaves out
    blocks.json             of a trimmed network: which blocks of a weight its entries are
    dependencies.json       of a network that MINT looked at: what depends on what, for the report
    record.json             what was measured, with settings, versions and hardware
    manifest.json           the hashes of these
    README.md               a model card
    load_without_niwaki.py  loads the folder where niwaki is not installed

`load` builds the original from its factory and gives every tensor and size attribute its pruned
value; nothing is traced.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.fx
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from niwaki.core.errors import CheckpointError, NiwakiError
from niwaki.core.records import DEPENDENCIES, Record, staged_folder
from niwaki.io import standalone
from niwaki.io.assembly import assembled, refuse_broken
from niwaki.io.blocks import BLOCKS, kept_weights, take_out
from niwaki.io.blueprint import Blueprint
from niwaki.io.card import model_card
from niwaki.io.fetched import fetch, is_repo
from niwaki.io.manifest import (
    BUFFERS,
    CARD,
    PLAN,
    RECORD,
    STANDALONE,
    WEIGHTS,
    check_manifest,
    read_text,
    write_manifest,
)
from niwaki.running import (
    call,
    made_up,
    named_state,
    preserved_mode,
    preserved_rng,
    preserved_state,
    seed_all,
)


class Pruned(Protocol):
    """What can be saved: a pruned model and its record; and its `dependencies` (DependencyMaps),
    where it has any.
    """

    @property
    def model(self) -> nn.Module:
        """The smaller module."""

    @property
    def record(self) -> Record:
        """Its record."""


def save(
    result: Pruned,
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a pruned network to a folder that appears complete or not at all.

    Where the original's factory is known, the folder is loaded again before it appears, and must
    give the same output to the last bit.

    Args:
        model: what builds the original: a listed name (`"resnet56"`), `"timm:resnet18"`,
            `"transformers:config.json"`, or `"package.module:factory"`. Not needed for a network
            that `niwaki.models.build` made, nor for most of timm and transformers, which say it
            themselves. Without any the folder can only be loaded with the original in hand.
        arguments: of the factory, as JSON holds them, where they do not fit into `model`.
        input_shape: the shape of one input without the batch axis, for the record.
        overwrite: replace an existing folder.

    Raises:
        OutputError: the folder exists and `overwrite` is not set, or it cannot be written.
        CheckpointError: the model is not one that niwaki pruned, it holds NaN, or `model` does not
            build its original.
    """
    if isinstance(result.model, fx.GraphModule):
        raise CheckpointError(
            f"{type(result.model).__name__} is a graph of operators, which no factory builds; "
            "write it with niwaki.export_program(model, inputs, 'model.pt2')"
        )
    ordinary, blocks = take_out(result.model)
    refuse_broken(
        ordinary, dict(ordinary.named_parameters()), f"this {type(result.model).__name__}"
    )
    blueprint = Blueprint.of(ordinary, model, arguments)
    settings = {
        **result.record.settings,
        "model": blueprint.factory,
        "factory": dict(blueprint.arguments),
    }
    if input_shape is not None:
        settings["input_shape"] = list(input_shape)
    measured = getattr(result, "measured", None)  # timed now, if it was to be timed when it is kept
    record = result.record if measured is None else measured().record
    record = dataclasses.replace(record, settings=settings)
    with staged_folder(Path(folder), overwrite=overwrite) as stage:
        _write_weights(ordinary, kept_weights(result.model), stage)
        if blocks is not None:
            (stage / BLOCKS).write_text(blocks, encoding="utf-8")
        if blueprint.factory is not None:
            blueprint = _proved(result.model, blueprint, stage, stated=model is not None)
        (stage / PLAN).write_text(blueprint.to_json(), encoding="utf-8")
        (stage / RECORD).write_text(record.to_json(), encoding="utf-8")
        dependencies = getattr(result, "dependencies", None)
        if dependencies is not None:
            (stage / DEPENDENCIES).write_text(dependencies.to_json(), encoding="utf-8")
        write_manifest(stage)
        shutil.copyfile(standalone.__file__, stage / STANDALONE)
        card = model_card(Path(folder).name, record, blueprint, blocks is not None)
        (stage / CARD).write_text(card, encoding="utf-8")
    return Path(folder)


def load(
    folder: str | os.PathLike[str],
    model: nn.Module | Callable[[], nn.Module] | str | None = None,
    *,
    trust: str | Sequence[str] = (),
    revision: str | None = None,
    token: str | None = None,
) -> nn.Module:
    """The pruned network of a folder that `save` wrote, on the CPU, in evaluation mode.

    Nothing runs but the factory that the folder names, and that only if it is listed, of timm,
    torchvision or transformers, or a class or function that declares to make an `nn.Module`, in a
    module that is imported already or installed. A module that merely lies in the current folder
    is not imported, unless it is named by `trust`.

    Args:
        folder: a folder; or, where there is none of that name, "user/repo" on the Hugging Face hub.
        model: the original, a function that builds it, or an import string of one that you trust,
            with any weights; without it the factory that the folder names.
        trust: packages of yours (`"my_package"`) whose code the folder may name.
        revision, token: of the repository on the hub: a branch, tag or commit; and the one that
            `hf auth login` left, without it.

    Raises:
        CheckpointError: a file is missing, changed or of a newer niwaki, does not fit the original,
            or names a factory that is not run unasked; or the hub cannot be reached.
        MissingExtraError: it is on the hub, and huggingface_hub is not installed.
    """
    if is_repo(folder) and not Path(folder).exists():
        folder = fetch(str(folder), revision, token)
    folder = Path(folder)
    files = check_manifest(folder)
    blueprint = read_blueprint(folder)
    trusted = (trust,) if isinstance(trust, str) else tuple(trust)
    return assembled(blueprint, [folder / name for name in files], model, folder, trusted)


def read_blueprint(folder: Path) -> Blueprint:
    """The plan.json of a saved network.

    Raises:
        CheckpointError: missing, damaged, or of a newer niwaki.
    """
    try:
        return Blueprint.from_json(read_text(folder / PLAN))
    except NiwakiError as error:
        raise CheckpointError(f"{folder / PLAN}: {error}") from error


def read_record(folder: str | os.PathLike[str]) -> Record:
    """The record.json of a saved network.

    Raises:
        CheckpointError: missing.
        RecordError: damaged.
    """
    path = Path(folder) / RECORD
    return Record.from_json(read_text(path), str(path))


def _write_weights(model: nn.Module, kept: Mapping[str, Tensor], stage: Path) -> None:
    tensors = {**named_state(model), **kept}
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    saved = model.state_dict().keys()
    save_file(
        {name: tensor for name, tensor in state.items() if name in saved}, str(stage / WEIGHTS)
    )
    rest = {name: tensor for name, tensor in state.items() if name not in saved}
    if rest:
        save_file(rest, str(stage / BUFFERS))


def _proved(model: nn.Module, blueprint: Blueprint, stage: Path, *, stated: bool) -> Blueprint:
    """The blueprint, once its factory and the weights written gave the model again.

    A factory that the caller did not name, but the network remembered, may have been overtaken (a
    new head): then it is left out, with a warning.
    """
    try:
        files = [stage / name for name in (WEIGHTS, BUFFERS, BLOCKS) if (stage / name).exists()]
        again = assembled(blueprint, files, blueprint.factory, stage)
        difference = _difference(model, again, blueprint)
    except NiwakiError as error:
        difference = str(error).replace(str(stage), "it")
    if difference is None:
        return blueprint
    wrong = (
        f"{blueprint.factory!r} with {str(dict(blueprint.arguments))[:200]} does not build the "
        f"original: {difference}"
    )
    if stated:
        raise CheckpointError(wrong)
    warnings.warn(
        f"{wrong}. The folder names no factory; save(…, model=…) can say the right one",
        stacklevel=4,
    )
    return dataclasses.replace(blueprint, factory=None, arguments={})


def _difference(model: nn.Module, again: nn.Module, blueprint: Blueprint) -> str | None:
    """How two networks that should be one differ; None where they do not."""
    if type(model) is not type(again):
        return f"it makes a {type(again).__name__}, this is a {type(model).__name__}"
    mine, other = named_state(model), named_state(again)
    for name in mine.keys() | other.keys():
        if (
            name not in mine
            or name not in other
            or not _same(mine[name].detach().cpu(), other[name])
        ):
            return f"{name} differs"
    if any(tensor.device.type != "cpu" for tensor in mine.values()):
        return None
    outputs = []
    for network in (model, again):
        with (
            preserved_mode(network, training=False),
            preserved_state(network),
            preserved_rng(),
            torch.no_grad(),
        ):
            seed_all(0)
            try:
                outputs.append(tree_leaves(call(network, made_up(blueprint.inputs))))
            except Exception:  # noise is not always an input that a network takes
                return None
    pairs = zip(*outputs, strict=True)
    same = all(not isinstance(a, Tensor) or _same(a, b) for a, b in pairs)
    return None if same else "its weights are the same, its output is not: a setting differs"


def _same(a: Tensor, b: Any) -> bool:
    if not isinstance(b, Tensor) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
