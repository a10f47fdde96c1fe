"""What a pruned model must compute: the operators of the original, at full size, on the original
weights, with what goes masked and what repairs it mixed in.

Two ways to run it. `reference_outputs` plays the recorded operators, so that no code of the model
takes part. `rerun_outputs` runs the model's own code and steps in at every operator, so that sizes
and paths are those of the inputs at hand; it raises where that is another path than the recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from niwaki.graph import Masked, branches_of
from niwaki.methods.base.cut import Cut
from niwaki.proof.counted import Counted, restated
from niwaki.running import Inputs, Op, Playback, run
from niwaki.surgery import masked_state

Step = Callable[[int, Op, tuple[Any, ...], dict[str, Any]], Any]


def masked_step(cut: Cut, numbers: tuple[Counted, ...] = ()) -> Step:
    """How each operator runs: readers see what is kept and mixed; sums of branches that go are
    skipped.

    Args:
        numbers: what the pruned model computes from the counts of channels that it has.
    """
    masked = Masked(cut.graph, cut.plan, cut.mixings)
    skipped = {branch.position: branch.stream for branch in branches_of(cut.graph, cut.plan)}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if position in skipped:
            return args[skipped[position]].clone()
        return masked.run(position, op, restated(numbers, position, args), kwargs)

    return step


def playback(cut: Cut, inputs: Inputs, state: Mapping[str, Tensor] | None = None) -> Playback:
    """The recorded operators on inputs of the recorded shapes, stopped before the first.

    Args:
        state: tensors by name, in the place of the model's own.
    """
    whole = cut.graph.state if state is None else state
    return Playback(cut.graph.inference.tape, masked_state(cut.plan, whole), inputs)


def reference_outputs(cut: Cut, inputs: Inputs, numbers: tuple[Counted, ...] = ()) -> list[Tensor]:
    """The output tensors of the masked and mixed full-size model.

    Args:
        inputs: of the shapes that the graph was traced on.
    """
    stopped = playback(cut, inputs)
    stopped.until(len(cut.graph.inference.tape.ops), masked_step(cut, numbers))
    return stopped.outputs


def rerun_outputs(
    cut: Cut, inputs: Inputs, numbers: tuple[Counted, ...] = (), *, training: bool = False
) -> list[Tensor]:
    """The same by the model's own code, on inputs of any sizes that it takes.

    Raises:
        TraceError: it takes another path on these inputs than was recorded.
    """
    step = masked_step(cut, numbers)
    return run(cut.graph.model, cut.graph.inference.tape, inputs, step, training=training)
