"""A check that needs no weights: the smaller model calls the same operators, and every result has
the size that is left.
"""

from __future__ import annotations

from torch import nn

from niwaki.core.errors import SurgeryError, TraceError
from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.graph.terms import kept_size
from niwaki.running import record


def check_structure(graph: Graph, plan: Plan, pruned: nn.Module) -> None:
    """Hold a pruned model on the meta device against its graph, operator by operator, by shapes
    alone.

    Weaker than `check`: a cut of the right size at the wrong place goes unseen. It is what can be
    known without values.

    Raises:
        SurgeryError: the pruned model does not run, takes another path, or a result has another
            size; the message names the first layer where that is so.
    """
    kept = {graph.variables[name]: len(units) for name, units in plan.kept.items()}
    tape = graph.inference.tape
    try:
        pruned_tape = record(pruned, graph.inputs)
    except TraceError as error:
        raise SurgeryError(
            f"the pruned model does not run: {error}", error.layer, error.position
        ) from error
    for position, (op, other) in enumerate(zip(tape.ops, pruned_tape.ops, strict=False)):
        where = op.layer or "the model"
        if op.func is not other.func:
            raise SurgeryError(
                f"the pruned model calls {other.name} where {op.name} was, in {where}",
                op.layer,
                position,
            )
        for ref, new in zip(op.outputs, other.outputs, strict=True):
            if ref is not None and new is not None:
                wanted = tuple(kept_size(term, kept) for term in graph.inference.axes[ref])
                if pruned_tape.shapes[new.index] != wanted:
                    raise SurgeryError(
                        (
                            f"{op.name} in {where} gives {pruned_tape.shapes[new.index]} in "
                            f"the pruned model; {wanted} is left of it"
                        ),
                        op.layer,
                        position,
                    )
    if len(tape.ops) != len(pruned_tape.ops):
        raise SurgeryError(
            f"the pruned model calls {len(pruned_tape.ops)} operators, the original {len(tape.ops)}"
        )
