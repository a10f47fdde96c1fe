"""A training run on disk: `last.safetensors`, from which it goes on exactly, `best.safetensors`,
and `history.json`.

`last.safetensors` is one file, so that a kill leaves the old state or the new one and never a
mixture. It holds no pickle: tensors by name (model/…, best/…, ema/…, optimizer/…, rng/…), and all
else as JSON in its header.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from niwaki.core.errors import CheckpointError, OutputError, SettingError
from niwaki.core.provenance import versions
from niwaki.core.records import write_bytes_atomic, write_text_atomic

SCHEMA = 1  # raised when what a checkpoint holds changes its meaning
LAST, BEST, HISTORY = "last.safetensors", "best.safetensors", "history.json"
Tensors = dict[str, Tensor]


def usual_trackers() -> tuple[str, ...]:
    """TensorBoard, where it is installed; it is an extra of its own."""
    return ("tensorboard",) if importlib.util.find_spec("tensorboard") else ()


@dataclass(frozen=True)
class RunFolder:
    """Where a run is kept.

    Attributes:
        resume: go on with the run that is there, if one is; without it, a folder that holds a run
            is refused.
        every: seconds between saves; 0 saves after every step. In several processes a run is saved
            after every epoch.
        trackers: names that accelerate knows: tensorboard, wandb, mlflow, …; without them
            tensorboard, where it is installed.
        describes: what else the run depends on (model, data, …), as plain data: a resume with other
            values is refused.
    """

    path: Path
    resume: bool = False
    every: float = 60.0
    trackers: tuple[str, ...] = field(default_factory=lambda: usual_trackers())
    describes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.every >= 0:
            raise SettingError(f"every is a number of seconds of at least 0; got {self.every}")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    tensors: Tensors
    progress: dict[str, Any]

    def part(self, name: str) -> Tensors:
        """The tensors below a name."""
        return {
            key.removeprefix(f"{name}/"): value
            for key, value in self.tensors.items()
            if key.startswith(f"{name}/")
        }


class Keeper:
    """Writes and reads the files of one run."""

    def __init__(self, folder: RunFolder, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self.asked: dict[str, Any] = json.loads(json.dumps(dict(asked), default=str))
        self._saved_at = time.monotonic()

    def open(self) -> Saved | None:
        """The run that is there, if one is.

        Raises:
            OutputError: there is one, and it is not to be resumed; or the folder cannot be made.
            CheckpointError: it cannot be read, or another version of niwaki wrote it.
            SettingError: it was made with other settings; they are listed.
        """
        path = self.folder.path
        last = path / LAST
        if last.exists() and not self.folder.resume:
            raise OutputError(f"{path} holds a training run; resume it, or name another folder")
        if (path / "plan.json").exists():
            raise OutputError(
                f"{path} holds a pruned network, whose files a training run would replace; name "
                "another folder"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            for partial in path.glob(".*.partial"):  # of a save that was killed
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be used for a training run: {error.strerror or error}"
            ) from error
        if not last.exists():
            return None
        tensors, header = _read(last)
        self._refuse_others(header, last)
        return Saved(tensors, header["progress"])

    def _refuse_others(self, header: Mapping[str, Any], last: Path) -> None:
        if header.get("schema") != SCHEMA:
            theirs, ours = header.get("versions", {}).get("niwaki", "unknown"), versions()["niwaki"]
            raise CheckpointError(
                f"{last} was written by niwaki {theirs} in format {header.get('schema')}; niwaki "
                f"{ours} reads format {SCHEMA}: "
                "go on with the version that began it, or start anew in another folder"
            )
        then, now = header.get("asked", {}), self.asked
        changed = [
            f"{key} was {json.dumps(then.get(key))} and is now {json.dumps(now.get(key))}"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        ]
        if changed:
            raise SettingError(
                f"{self.folder.path} was trained with other settings: {'; '.join(changed)}; use "
                "the old ones to resume it, "
                "or name another folder"
            )

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved_at >= self.folder.every

    def save(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Replace the checkpoint, whole or not at all.

        Raises:
            OutputError: the disk is full or the folder gone; the old checkpoint is as it was.
        """
        header = {
            "schema": SCHEMA,
            "versions": versions(),
            "asked": self.asked,
            "progress": dict(progress),
        }
        # torch saves no two names for one memory; every name gets its own here, and ties come back
        # when the model takes them
        flat = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        write_bytes_atomic(self.folder.path / LAST, save(flat, {"niwaki": json.dumps(header)}))
        self._saved_at = time.monotonic()

    def save_best(self, weights: Mapping[str, Tensor], history: Mapping[str, Any]) -> None:
        """The weights to keep, as `niwaki.load_weights` reads them, and the run's history."""
        seen: dict[tuple[int, torch.Size], str] = {}
        once = {
            name: t
            for name, t in weights.items()
            if seen.setdefault((t.data_ptr(), t.shape), name) == name or not t.numel()
        }
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in once.items()}
        write_bytes_atomic(self.folder.path / BEST, save(flat))
        write_text_atomic(self.folder.path / HISTORY, json.dumps(history, indent=2) + "\n")


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["niwaki"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint of a training run ({error})"
        ) from error


def check_fits(saved: Mapping[str, Tensor], own: Mapping[str, Tensor], where: Path) -> None:
    """Refuse the weights of another model.

    Raises:
        CheckpointError: names or shapes differ; some are named.
    """
    problems = [f"{name} is missing" for name in own if name not in saved]
    problems += [f"{name} is not in this model" for name in saved if name not in own]
    problems += [
        f"{name} is {tuple(saved[name].shape)} there and {tuple(tensor.shape)} in this model"
        for name, tensor in own.items()
        if name in saved and saved[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{where / LAST} is of another model: {'; '.join(problems[:3])}{more}"
        )
