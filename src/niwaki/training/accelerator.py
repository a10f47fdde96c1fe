"""Devices, processes, precision and trackers, through Hugging Face's accelerate, which is loaded
when training begins.
"""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from niwaki.core.errors import MissingExtraError, SettingError, UnknownNameError
from niwaki.training.settings import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKERS = {  # name → the package that it needs
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "aim": "aim",
    "comet_ml": "comet_ml",
    "mlflow": "mlflow",
    "clearml": "clearml",
    "dvclive": "dvclive",
    "swanlab": "swanlab",
}


def make_accelerator(
    device: torch.device,
    precision: Precision,
    trackers: Sequence[str] = (),
    folder: str | None = None,
) -> Accelerator:
    """An accelerator for a model that lies on `device`; under `accelerate launch` or `torchrun`,
    for all their processes.

    Raises:
        MissingExtraError: accelerate, or what a tracker needs, is not installed.
        UnknownNameError: no such tracker.
        SettingError: the precision does not exist on the device.
    """
    _check_trackers(trackers)
    if (
        precision == "fp16" and device.type == "cpu"
    ):  # its gradients would underflow: they are scaled on accelerators only
        raise SettingError("precision 'fp16' cannot be used on the cpu; take 'bf16' or 'no'")
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", "train") from error
    alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    # accelerate keeps the first settings of a process for all of its life; a second training run
    # may have others
    AcceleratorState._reset_state(reset_partial_state=alone and PartialState._shared_state != {})
    try:
        made = Accelerator(
            mixed_precision=precision,
            cpu=alone and device.type == "cpu",
            log_with=list(trackers) or None,
            project_dir=folder,
        )
    except ValueError as error:
        raise SettingError(
            f"precision {precision!r} cannot be used on {device}: {error}"
        ) from error
    if made.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return made


def _leave() -> None:
    """A process that ends without leaving the group can take the others down."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_trackers(trackers: Sequence[str]) -> None:
    for name in trackers:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, TRACKERS)
        if (
            importlib.util.find_spec(TRACKERS[name]) is None
        ):  # accelerate would go on without a word
            if name == "tensorboard":
                raise MissingExtraError("tensorboard", "tracking")
            raise SettingError(
                f"the tracker {name!r} needs the package {TRACKERS[name]}: pip install "
                f"{TRACKERS[name]}"
            )


def broadcast(accelerator: Accelerator, value: Any) -> Any:
    """What the first process holds, in all of them."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value], from_process=0)[0]
