"""A model is run again, on inputs of any batch size, and the caller steps in at every operator that
was recorded of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from niwaki.core.errors import TraceError, in_words
from niwaki.running.hollow import HollowRun
from niwaki.running.inputs import Inputs, as_arguments, copied, modules_of
from niwaki.running.tape import Op, Ref, Tape, named_state, tensors_in
from niwaki.running.watching import LayerStack, OperatorMode, plain_operators
from niwaki.running.writes import undisturbed

Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


class _Stepper(OperatorMode):
    """Lets a step run each operator of a model in the place of the dispatcher, and holds it to the
    tape.
    """

    def __init__(self, model: nn.Module, tape: Tape, step: Step) -> None:
        super().__init__()
        self._ops, self._step = tape.ops, step
        self._parameters = tape.parameters
        self._names = {id(tensor): name for name, tensor in named_state(model).items()}
        self.done = 0

    def on_operator(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        expected = self._ops[self.done] if self.done < len(self._ops) else None
        if expected is not None and expected.func is not func:
            reshaped = self._reshaped(func, args, kwargs)
            if reshaped is not None:
                return reshaped
        if expected is None or expected.func is not func or func.namespace == "prim":
            result = func(*args, **kwargs)
            outputs = result if isinstance(result, (tuple, list)) else (result,)
            if func.namespace != "prim" and any(isinstance(item, Tensor) for item in outputs):
                was = (
                    f"{expected.name} in {expected.layer or 'the model'}" if expected else "its end"
                )
                raise TraceError(
                    "on these inputs the model takes another path than on the example inputs: "
                    f"{func.overloadpacket} where "
                    f"{was} was recorded; use example inputs of the same kind",
                    other_path=True,
                )
            return result
        self._refuse_others(expected, args)
        result = self._step(self.done, expected, args, kwargs)
        self.done += 1
        return result

    def _refuse_others(self, op: Op, args: tuple[Any, ...]) -> None:
        """Two layers of one kind call the same operators: it must be the one that was recorded."""
        for known, given in zip(op.args, args, strict=False):
            name = self._names.get(id(given))
            was = self._parameters.get(known, name) if isinstance(known, Ref) else name
            if was != name and name is not None:
                raise TraceError(
                    "on these inputs the model takes another path than on the example inputs: it "
                    f"reads {name} where {was} was read; use example inputs of the same kind",
                    other_path=True,
                )

    def _reshaped(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        """The result of a reshape that is a view here and was a copy there, or the other way
        round: which it is hangs on how numbers lie in memory (a batch of one lies otherwise).
        """
        here, behind = self._ops[self.done], self._ops[self.done + 1 : self.done + 2]
        if func is _VIEW and here.func is _COPY and behind and behind[0].func is _COPIED_VIEW:
            copied = self._step(self.done, here, args[:1], dict(here.kwargs))
            self.done += 2
            return self._step(self.done - 1, behind[0], (copied, *args[1:]), kwargs)
        if func is _COPY and here.func is _VIEW:
            return func(*args, **kwargs)  # a view of it comes next, or the path is another
        if func is _COPIED_VIEW and here.func is _VIEW:
            self.done += 1
            return self._step(self.done - 1, here, args, kwargs)
        return None


_VIEW, _COPY = torch.ops.aten.view.default, torch.ops.aten.clone.default
_COPIED_VIEW = torch.ops.aten._unsafe_view.default


def plainly(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The step that steps in nowhere: the operator as it is."""
    return op.func(*args, **kwargs)


def run(
    model: nn.Module,
    tape: Tape,
    inputs: Inputs,
    step: Step,
    *,
    training: bool = False,
    hollow: HollowRun | None = None,
) -> list[Tensor]:
    """Run the model itself on inputs of any batch size, letting the caller step in at every
    operator of its tape.

    As `play` (niwaki.running.replay), but sizes that the model's code takes from its inputs are
    those of these inputs. The model is left as it was.

    Args:
        tape: of this model. Its shapes are of the example inputs; batch sizes here may differ.
        step: (position, operator, args, kwargs) → what the operator returns; it normally calls
            `op.func`.
        hollow: run the operators that the step calls without their numbers.

    Returns:
        The model's output tensors.

    Raises:
        TraceError: the model takes another path on these inputs, or raises.
    """
    stepper = _Stepper(model, tape, step)
    args, kwargs = as_arguments(copied(inputs))
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_of(model).values())
    try:
        with ExitStack() as stack:
            for context in (
                undisturbed(model, training=training),
                plain_operators(fast=not recurrent),
                hollow or nullcontext(),
                stepper,
            ):
                stack.enter_context(context)
            if hollow is not None:
                hollow.start((args, kwargs))
            output = model(*args, **kwargs)
    except TraceError:
        raise
    except Exception as error:
        layers = LayerStack.at(model, error)
        raise TraceError(
            f"{layers.describe()} raised: {in_words(error)}", layers.current, stepper.done
        ) from error
    return list(tensors_in(output))
