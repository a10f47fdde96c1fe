"""Gradual pruning in a loop on accelerate.

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
gradual = schedule(accelerator, model, x, "macs=0.5", steps=steps, optimizer=optimizer)
for inputs, targets in loader:
    with accelerator.accumulate(model):
        …
        optimizer.step()
        gradual.step()
"""

from __future__ import annotations

from typing import Any

from torch import nn

from niwaki.core.inputs import Inputs
from niwaki.integrations.asked import refuse_processes
from niwaki.pruning import Gradual, Schedule


class OnAccelerate(Gradual):
    """A schedule that counts the optimiser's steps only: not the parts of a batch that is
    accumulated, nor steps that a scaler left out.
    """

    _accelerator: Any = None

    def step(self) -> bool:
        """To be called wherever `optimizer.step()` is."""
        accelerator = self._accelerator
        if not accelerator.sync_gradients or accelerator.optimizer_step_was_skipped:
            return False
        return super().step()


def schedule(  # noqa: PLR0913  # as of niwaki.schedule
    accelerator: Any,
    model: nn.Module,
    example_inputs: Inputs,
    budget: Any = 0.5,
    *,
    steps: int,
    optimizer: Any = None,
    shape: Any = "cubic",
    times: int = 5,
    begin: float = 0.1,
    end: float = 0.7,
    **options: Any,
) -> Gradual:
    """`niwaki.schedule` for what an `accelerate.Accelerator` has prepared.

    Args:
        accelerator: in one process.
        model, optimizer: as `prepare` gave them.
        steps: of the optimiser: batches × epochs ÷ gradient accumulation.

    Raises:
        SettingError: several processes share the model; and as `niwaki.schedule`.
    """
    refuse_processes(accelerator.num_processes)
    asked = budget if isinstance(budget, Schedule) else Schedule(budget, shape, times, begin, end)
    network = accelerator.unwrap_model(model)
    gradual = OnAccelerate(network, example_inputs, asked, steps, optimizer=optimizer, **options)
    gradual._accelerator = accelerator
    return gradual
