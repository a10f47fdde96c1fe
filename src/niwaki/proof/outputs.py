"""A pruned model is run for its outputs, and what keeps it from running is named."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from niwaki.core.errors import SurgeryError, TraceError, in_words
from niwaki.running import (
    Inputs,
    call,
    copied,
    preserved_mode,
    preserved_rng,
    preserved_state,
    record,
    seed_all,
    tensors_in,
    written_back,
)


def run_outputs(
    model: nn.Module,
    inputs: Inputs,
    watch: AbstractContextManager[Any] | None = None,
    *,
    training: bool = False,
) -> list[Tensor]:
    """The output tensors of a model on inputs, in evaluation mode or in training; it is left as it
    was.

    Args:
        watch: a mode that it runs under.

    Raises:
        SurgeryError: it does not run; with the layer that raised.
    """
    inputs = copied(inputs)
    # a model in evaluation mode is run as it is: setting the mode again might clear what is wrong
    # with it
    mode = (
        preserved_mode(model, training=training)
        if any(part.training is not training for part in model.modules())
        else nullcontext()
    )
    writes = written_back(model) if training else nullcontext()
    with torch.no_grad(), preserved_state(model), mode, preserved_rng(), writes:
        seed_all(0)
        try:
            with watch or nullcontext():
                output = call(model, inputs)
            return [tensor.clone() for tensor in tensors_in(output)]
        except Exception as error:
            layer, position = _failing_place(model, inputs, training)
            other_form = "" if isinstance(model, fx.GraphModule) else ', or ask for form="graph"'
            raise SurgeryError(
                f"the pruned model does not run: {layer or 'its forward'} raised: "
                f"{in_words(error)}. Its code probably holds a size "
                f"that is not read from a tensor; leave that layer out with skip={other_form}",
                layer,
                position,
            ) from error


def _failing_place(
    model: nn.Module, inputs: Inputs, training: bool
) -> tuple[str | None, int | None]:
    """The innermost module that raises when the model is run, and how many operators ran before."""
    try:
        record(model, inputs, fake=False, training=training)
    except TraceError as error:
        return error.layer, error.position
    return None, None
