"""Never hand back a network that was not checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from niwaki.core.errors import SurgeryError, TraceError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Plan
from niwaki.graph import Graph, Role
from niwaki.graph.terms import keep_mask
from niwaki.proof.counted import Counted, counted_numbers
from niwaki.proof.reference import reference_outputs
from niwaki.running import (
    Inputs,
    Op,
    call,
    copied,
    named_state,
    preserved_mode,
    preserved_rng,
    preserved_state,
    record,
    tensors_in,
)
from niwaki.running.compare import difference, tolerance
from niwaki.running.probes import telling_inputs, with_telling_weights
from niwaki.running.watching import OperatorMode
from niwaki.surgery._shrink import fill


def check(
    graph: Graph, plan: Plan, mixings: Mapping[str, Mixing] | None, pruned: nn.Module
) -> float:
    """Prove that the pruned model computes what the full-size one computes with the same units
    masked and mixed.

    Both are run in evaluation mode on the example inputs that the graph was traced on (on random
    ones of the same shapes where an example is constant, as zeros would hide a wrong cut), with the
    same random state; and once more with made-up weights on both sides, where a branch that is near
    zero counts as much as any other.

    Returns:
        the largest difference of an output, as a share of the largest output.

    Raises:
        SurgeryError: they differ; the message names the first layer that does.
    """
    mixings = mixings or {}
    if any(tensor.device.type == "meta" for tensor in graph.state.values()):
        raise SurgeryError(
            "a model on the meta device has no values to check; move it to a device with its "
            "weights first"
        )
    numbers = counted_numbers(graph, plan, pruned)
    worst = _compare(graph, plan, mixings, pruned, numbers)
    if not graph.inference.tape.by_value:
        telling = replace(graph, model=with_telling_weights(graph.model))
        refilled = copy.deepcopy(pruned)
        fill(refilled, telling, plan, mixings)
        _compare(telling, plan, mixings, refilled, numbers, slack=10)
    return worst


def _compare(
    graph: Graph,
    plan: Plan,
    mixings: Mapping[str, Mixing],
    pruned: nn.Module,
    numbers: tuple[Counted, ...] = (),
    slack: float = 1,
) -> float:
    """The largest difference of an output, as a share of the largest; raises where it is too
    large.
    """
    inputs = telling_inputs(graph.inputs)
    made_up = slack > 1
    with preserved_rng():
        torch.manual_seed(0)
        try:
            expected = _expected(graph, plan, mixings, inputs, numbers)
        except (RuntimeError, IndexError, ValueError) as error:
            if made_up:
                # as many boxes or matches as the trace found need not be found with other weights
                return 0.0
            raise SurgeryError(f"the masked original cannot be run: {error}") from error
    if not made_up and all(tensor.numel() == 0 for tensor in expected):
        raise SurgeryError(
            "on the example inputs the masked original puts out nothing (no box, no match), so "
            "that nothing can be compared; "
            "use inputs on which it finds something"
        )
    actual = run_outputs(pruned, inputs)
    if len(expected) != len(actual):
        raise SurgeryError(
            f"the pruned model returns {len(actual)} tensors, the original {len(expected)}"
        )
    if made_up and not all(bool(tensor.isfinite().all()) for tensor in expected):
        return 0.0  # made-up weights may overflow; that tells nothing
    worst = 0.0
    for wanted, found in zip(expected, actual, strict=True):
        gap = difference(wanted, found)
        if gap > slack * tolerance(graph.inference.tape):
            comparer = _first_difference(graph, plan, mixings, pruned, inputs, numbers)
            where = comparer.verdict or "no single operator does"
            raise SurgeryError(
                f"the pruned model differs from the masked original by {gap:.1e} of the largest "
                f"output; {where}. "
                "Leave the layers around it out with skip=",
                comparer.layer,
                comparer.position,
            )
        worst = max(worst, gap)
    return worst


def _expected(
    graph: Graph,
    plan: Plan,
    mixings: Mapping[str, Mixing],
    inputs: Inputs,
    numbers: tuple[Counted, ...],
) -> list[Tensor]:
    """What the masked original puts out: the recorded operators, or the model itself where its path
    hangs on values.
    """
    if graph.inference.tape.by_value:
        masked = masked_copy(graph, plan, mixings)
        if masked is not None:
            return run_outputs(masked, inputs)
    return reference_outputs(graph, plan, mixings, inputs, numbers=numbers)


def masked_copy(graph: Graph, plan: Plan, mixings: Mapping[str, Mixing]) -> nn.Module | None:
    """The original at full size with the units masked in the weights that read them; None where
    weights cannot say it.

    For detectors and the like, which find another number of boxes once they are masked: their
    recorded operators hold for the original's boxes only.
    """
    model = copy.deepcopy(graph.model)
    state = named_state(model)
    for name, units in plan.kept.items():
        group = graph[name]
        mixing = mixings.get(name)
        if (
            group.fold_obstacle is not None
            or group.normalised is not None
            or (mixing is not None and mixing.shifted)
        ):
            return None
        kept = torch.as_tensor(units, device="cpu")
        for piece in group.of_role(Role.CONSUMER):
            matrix = (
                Mixing.selecting(group.width, units).matrix
                if mixing is None
                else mixing.at(piece.tensor).matrix
            )
            spread = torch.zeros(group.width, group.width, dtype=torch.float64, device="cpu")
            spread[:, kept] = matrix.cpu()
            _mask(state[piece.tensor], piece.axis, piece.units, spread)
    return model


def _mask(tensor: Tensor, axis: int, units: Tensor, spread: Tensor) -> None:
    """Multiply a weight by (width × width) over its units, at every place that a unit has in the
    axis alike.
    """
    order = torch.argsort(units, stable=True)
    order = order[units[order] >= 0].to(tensor.device)
    columns = tensor.detach().movedim(axis, 0)
    width = len(spread)
    rows = columns[order].reshape(width, -1).double()
    mixed = (spread.T.to(tensor.device) @ rows).reshape(len(order), *columns.shape[1:])
    changed = columns.clone()
    changed[order] = mixed.to(tensor.dtype)
    tensor.data = changed.movedim(0, axis).contiguous()


def run_outputs(
    model: nn.Module, inputs: Inputs, watch: AbstractContextManager[Any] | None = None
) -> list[Tensor]:
    inputs = copied(inputs)
    # a model in evaluation mode is run as it is: setting the mode again might clear what is wrong
    # with it
    mode = (
        preserved_mode(model, training=False)
        if any(part.training for part in model.modules())
        else nullcontext()
    )
    with torch.no_grad(), preserved_state(model), mode, preserved_rng():
        torch.manual_seed(0)
        try:
            with watch or nullcontext():
                output = call(model, inputs)
            return [tensor.clone() for tensor in tensors_in(output)]
        except Exception as error:
            layer, position = _failing_place(model, inputs)
            other_form = "" if isinstance(model, fx.GraphModule) else ', or ask for form="graph"'
            raise SurgeryError(
                f"the pruned model does not run: {layer or 'its forward'} raised: {error}. Its "
                "code probably holds a size "
                f"that is not read from a tensor; leave that layer out with skip={other_form}",
                layer,
                position,
            ) from error


def _failing_place(model: nn.Module, inputs: Inputs) -> tuple[str | None, int | None]:
    """The innermost module that raises when the model is run, and how many operators ran before."""
    try:
        record(model, inputs, fake=False)
    except TraceError as error:
        return error.layer, error.position
    return None, None


def _first_difference(
    graph: Graph,
    plan: Plan,
    mixings: Mapping[str, Mixing],
    pruned: nn.Module,
    inputs: Inputs,
    numbers: tuple[Counted, ...],
) -> _Comparer:
    """Run both again, operator by operator, and find where they part."""
    masks = graph.masks(plan.kept)
    expected: list[tuple[Op, list[Tensor]]] = []

    def keep(position: int, op: Op, result: Any) -> None:
        values = []
        for ref, value in zip(
            op.outputs, result if isinstance(result, (tuple, list)) else (result,), strict=True
        ):
            if ref is not None:
                for axis, term in enumerate(graph.inference.axes[ref]):
                    if value.shape[axis] == term.size:
                        value = value.index_select(
                            axis, keep_mask(term, masks).nonzero().squeeze(1).to(value.device)
                        )
                values.append(value.clone())
        expected.append((op, values))

    with preserved_rng():
        torch.manual_seed(0)
        reference_outputs(graph, plan, mixings, inputs, watch=keep, numbers=numbers)
    comparer = _Comparer(expected, tolerance(graph.inference.tape))
    run_outputs(pruned, inputs, watch=comparer)
    return comparer


class _Comparer(OperatorMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Holds a model's operators, as they run, against expected results in the same order."""

    def __init__(self, expected: list[tuple[Op, list[Tensor]]], tolerance: float) -> None:
        super().__init__()
        self._tolerance = tolerance
        self._expected = iter(expected)
        self._done = 0
        self.verdict: str | None = None
        self.layer: str | None = None
        self.position: int | None = None

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        found = [
            v
            for v in (result if isinstance(result, (tuple, list)) else (result,))
            if isinstance(v, Tensor)
        ]
        if self.verdict is None and func.namespace != "prim" and found:
            self._compare(func, found)
        return result

    def _compare(self, func: OpOverload, found: list[Tensor]) -> None:
        op, wanted = next(self._expected, (None, []))
        if op is None or op.func is not func:
            self._note(
                op,
                (
                    f"it takes another path at {func.overloadpacket} in "
                    f"{(op and op.layer) or 'the model'}"
                ),
            )
        # only the first result: others are statistics and indices that nothing compares
        elif difference(wanted[0], found[0]) > self._tolerance:
            self._note(op, f"the first layer that differs is {op.layer or 'the model'} ({op.name})")
        self._done += 1

    def _note(self, op: Op | None, verdict: str) -> None:
        self.verdict, self.position = verdict, self._done
        self.layer = op.layer if op else None
