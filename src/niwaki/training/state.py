"""What beside the weights a training run consists of: the optimiser's memory, and the states of
torch's generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from niwaki.training.loop import Run


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with a prefix and a slash before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in state.items()}


def generators(run: Run) -> dict[str, Tensor]:
    """States of torch's generators, one row a process. All processes must call it together."""
    states = {"cpu": torch.get_rng_state()}
    if run.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(run.device)
    if run.accelerator.num_processes == 1:
        return {kind: state[None] for kind, state in states.items()}
    return {kind: _gathered(run, state).cpu() for kind, state in states.items()}


def _gathered(run: Run, state: Tensor) -> Tensor:
    rows: Any = run.accelerator.gather(state[None].to(run.device))
    return rows  # type: ignore[no-any-return]  # accelerate has no types here


def set_generators(run: Run, states: Mapping[str, Tensor]) -> None:
    """Put this process's generators where they were."""
    number = run.accelerator.process_index
    torch.set_rng_state(
        states["cpu"][number].clone()
    )  # torch reads a view of a later row past its end
    if run.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"][number].clone(), run.device)


def optimizer_state(run: Run) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter: kind/parameter → tensor."""
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    return {
        f"{kind}/{names[parameter]}": value
        for parameter, entries in run.optimizer.state.items()
        for kind, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(run: Run, state: Mapping[str, Tensor]) -> None:
    """Give the optimiser back what `optimizer_state` read."""
    parameters = dict(run.model.named_parameters())
    for key, value in state.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        # a step count stays on the CPU, what has the parameter's shape lies beside it, in its
        # layout
        placed = (
            torch.empty_like(parameter).copy_(value)
            if value.shape == parameter.shape and value.ndim
            else value
        )
        run.optimizer.state[parameter][kind] = placed.detach()
