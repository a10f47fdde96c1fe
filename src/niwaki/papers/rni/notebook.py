"""The published interface: two functions that a notebook calls, with their arguments and
defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from niwaki import data
from niwaki.core.errors import BudgetError, SettingError
from niwaki.data import Dataset
from niwaki.papers.rni.experiment import Method, Setting, pruned, trained, tuned
from niwaki.papers.rni.logs import Logs
from niwaki.training import RunFolder


def train(
    dataset: str | Dataset = "cifar10",
    arch: str = "vgg16",
    method: Method = "rni",
    reg_weight: float = 1e-4,
    b: float = 3,
    epochs: int = 160,
    lr: float = 0.1,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cuda:0",
    *,
    data_root: str | Path | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[nn.Module, Logs]:
    """Train a network from scratch, which can be pruned later.

    Args:
        dataset: "cifar10", "cifar100", any other listed name, or a data set.
        arch: "vgg16", "resnet56", or any other listed network.
        method: "rni", "l1", or "ucs", which trains without a penalty.
        reg_weight: strength of the penalty.
        b: the shift of RNI.
        lr: divided by 10 at 50 % and again at 75 % of the epochs.
        data_root: folder of the data set's files; without it they are fetched.
        folder: where to keep the run; if it holds one already, that goes on where it stopped.
        options: more fields of `niwaki.papers.rni.Setting`: precision, compile, limit, rule, decay.

    Returns:
        the network with the weights of the best validation epoch, and the logs: `logs["test_acc"]`,
        a share an epoch, `logs["best_epoch"]`, the index of the kept one, and what else `Logs` has.
    """
    setting = Setting(
        arch, method, reg_weight, b, epochs, lr, batch_size, seed, _usable(device), **options
    )
    loaded = _loaded(dataset, data_root)
    model, history = trained(setting, loaded, _kept(folder), progress=progress, tested=True)
    return model, Logs(history)


def prune_finetune(
    model: nn.Module,
    dataset: str | Dataset = "cifar10",
    method: Method = "rni",
    prune_pc: float = 0.5,
    epochs: int = 160,
    lr: float = 0.1,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cuda:0",
    *,
    data_root: str | Path | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[nn.Module, Logs]:
    """Prune a share of a network's filters in one shot, and train it again without the penalty; the
    model is not touched.

    Args:
        method: "ucs" takes the same share of every layer, "rni" and "l1" lay one threshold over the
            network.
        prune_pc: share of the filters to remove, in [0, 1); at least three stay in a layer.

    Returns:
        the smaller network with the weights of the best validation epoch, and the logs of the
        fine-tuning.
    """
    if not 0 <= prune_pc < 1:
        raise BudgetError(
            f"prune_pc is a share in [0, 1), where 0.5 removes half of the filters; got {prune_pc}"
        )
    setting = Setting(
        "", method, 0.0, 0.0, epochs, lr, batch_size, seed, _usable(device), **options
    )
    loaded = _loaded(dataset, data_root)
    smaller = pruned(model.to(setting.device), setting, loaded, prune_pc).model
    history = tuned(smaller, setting, loaded, _kept(folder), progress=progress, tested=True)
    return smaller, Logs(history)


def _loaded(dataset: str | Dataset, root: str | Path | None) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    return data.load(dataset, None if root is None else Path(root))


def _kept(folder: str | Path | None) -> RunFolder | None:
    return None if folder is None else RunFolder(Path(folder), resume=True)


def _usable(device: str) -> str:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); pass "
            "device='cpu'"
        ) from error
    return device
