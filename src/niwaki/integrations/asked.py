"""What a callback is asked for before it knows its network, and what it does once it does."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torch.optim import Optimizer

from niwaki.core.errors import SettingError
from niwaki.core.inputs import Inputs
from niwaki.pruning import Gradual, Result, Schedule


class Asked:
    """The arguments of `niwaki.schedule`, without the network and the length of the run.

    The base of the callbacks.

    Args:
        example_inputs: as for `niwaki.prune`.
        budget: what is gone in the end, or a whole `niwaki.Schedule`.
        shape, times, begin, end: as of `niwaki.schedule`.
        options: ema, press, and those of `niwaki.prune`.
    """

    gradual: Gradual | None = None  # at work, once training has begun

    def __init__(
        self,
        example_inputs: Inputs,
        budget: Any = 0.5,
        *,
        shape: Any = "cubic",
        times: int = 5,
        begin: float = 0.1,
        end: float = 0.7,
        **options: Any,
    ) -> None:
        super().__init__()
        self._inputs, self._options = example_inputs, options
        self._schedule = (
            budget if isinstance(budget, Schedule) else Schedule(budget, shape, times, begin, end)
        )

    @property
    def result(self) -> Result:
        """The pruned network with its record, after training.

        Raises:
            SettingError: training has not begun, or ended before the last cut.
        """
        if self.gradual is None:
            raise SettingError("the training has not begun: there is no pruned network yet")
        return self.gradual.result

    def _start(self, model: nn.Module, steps: int, done: int, optimizer: Optimizer) -> None:
        self.gradual = Gradual(
            model, self._inputs, self._schedule, steps, optimizer=optimizer, done=done,
            **self._options,
        )  # fmt: skip

    def _advance(self, step: int) -> None:
        """The trainer's count of steps, which does not move while gradients are accumulated."""
        while self.gradual is not None and self.gradual.done < step:
            self.gradual.step()

    def _end(self) -> None:
        if self.gradual is None or not self.gradual.left:
            return
        self.gradual.close()
        warnings.warn(
            f"{len(self.gradual.left)} of {len(self.gradual.cuts)} cuts were not made: the "
            f"training stopped after {self.gradual.done} of {self.gradual.steps} steps",
            stacklevel=3,
        )


def refuse_processes(count: int) -> None:
    """
    Raises:
        SettingError: the network is shared by several processes.
    """
    if count > 1:
        raise SettingError(
            f"gradual pruning runs in one process, and this run has {count}: what DDP and FSDP "
            "wrap keeps its old sizes; prune with niwaki.prune before the run, or train on one "
            "device"
        )
