"""What a pruned model must compute: the recorded operators of the original, played back at full
size, masked and mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Graph, Masked
from niwaki.proof.counted import Counted, restated
from niwaki.running import Inputs, Op, play

Watch = Callable[[int, Op, Any], None]


def reference_outputs(
    graph: Graph,
    plan: Plan,
    mixings: Mapping[str, Mixing],
    inputs: Inputs,
    watch: Watch | None = None,
    numbers: tuple[Counted, ...] = (),
) -> list[Tensor]:
    """The output tensors of the masked and mixed full-size model.

    Args:
        inputs: of the shapes that the graph was traced on.
        watch: called with (position, operator, result) behind every operator.
        numbers: what the pruned model computes from the counts of channels that it has.
    """
    masked = Masked(graph, plan, mixings)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = masked.run(position, op, restated(numbers, position, args), kwargs)
        if watch is not None:
            watch(position, op, result)
        return result

    return play(graph.inference.tape, graph.state, inputs, step)
