"""The public verb of gradual pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from niwaki.core.budget import Budget
from niwaki.methods.greg import GReg
from niwaki.pruning.gradual import Gradual
from niwaki.pruning.schedules import Schedule
from niwaki.running import Inputs


def schedule(  # noqa: PLR0913  # a public verb
    model: nn.Module,
    example_inputs: Inputs,
    budget: Budget | Mapping[str, Any] | float | str | Schedule = 0.5,
    *,
    steps: int,
    optimizer: Optimizer | None = None,
    ema: nn.Module | None = None,
    press: GReg | str | None = None,
    shape: str = "cubic",
    times: int = 5,
    begin: float = 0.1,
    end: float = 0.7,
    **options: Any,
) -> Gradual:
    """Make a network smaller while it is trained, in place; call the result's `step()` after every
    step of the optimiser.

    Args:
        model: the network in training, not wrapped (DDP, FSDP) nor compiled yet.
        example_inputs: as for `niwaki.prune`; they are moved to the model's device.
        budget: what is gone in the end, of the network as it is now, in channels, params, macs or
            bytes; or a whole `niwaki.Schedule` in the place of `shape`, `times`, `begin` and `end`.
        steps: of the optimiser, in the whole run.
        optimizer: it goes on with the smaller parameters, its momenta cut with them. Not needed
            where it is made after the last cut.
        ema: a running mean of the weights (`torch.optim.swa_utils.AveragedModel`, or a copy of the
            network), which is cut alike.
        press: `"greg"`, with settings as in `"greg:reg=1e-3,every=10"`: from one cut to the next,
            the units that are to go are pressed down by a weight decay that grows.
        shape: "cubic", "linear" or "one-shot" (all at `begin`).
        times: how many cuts.
        begin, end: of the first and the last cut: steps, or shares of the run.
        options: of `niwaki.prune`: criterion, compensation, calibration, skip, scope, …

    Raises:
        SettingError: the schedule is longer than the run, or the network has one already.
        BudgetError: a budget that is measured, or that cannot be met.
        TraceError: the model is wrapped, compiled, or does not run on the example inputs.
    """
    settings = (
        budget if isinstance(budget, Schedule) else Schedule(budget, shape, times, begin, end)  # type: ignore[arg-type]  # checked there
    )
    return Gradual(
        model, example_inputs, settings, steps, optimizer=optimizer, ema=ema, press=press, **options
    )
