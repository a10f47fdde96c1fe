"""Whole residual branches out of a network: by parts that do nothing in their place, or out of the
graph of operators.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph
from niwaki.proof._check import run_outputs
from niwaki.running import Op, named_state, play, preserved_rng
from niwaki.running.compare import difference, tolerance
from niwaki.running.probes import telling_inputs, with_telling_weights
from niwaki.surgery._rewrite import rewrite
from niwaki.surgery.nothing import Nothing


def without_branches(graph: Graph, dropped: Sequence[Branch]) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of the model without these branches, proved; and those that its own code could not do
    without.

    Of each branch the block around it becomes an identity, or the parts that compute it become
    nothing; whichever of the two computes what the original computes with that branch's sum
    skipped.
    """
    together = copy.deepcopy(graph.model)
    try:
        for branch in dropped:
            _replacements(graph, branch)[0](together)
        check_branches(graph, dropped, together)
        return together, ()
    except (SurgeryError, IndexError):
        return _one_by_one(graph, dropped)


def _one_by_one(graph: Graph, dropped: Sequence[Branch]) -> tuple[nn.Module, tuple[str, ...]]:
    model, gone, failed = copy.deepcopy(graph.model), list[Branch](), list[str]()
    for branch in dropped:
        for replace in _replacements(graph, branch):
            attempt = copy.deepcopy(model)
            replace(attempt)
            try:
                check_branches(graph, [*gone, branch], attempt)
            except SurgeryError:
                continue
            model = attempt
            gone.append(branch)
            break
        else:
            failed.append(branch.name)
    return model, tuple(failed)


def _replacements(graph: Graph, branch: Branch) -> list[Callable[[nn.Module], None]]:
    """Ways to take a branch out of a copy of the model, the better one first."""
    ways: list[Callable[[nn.Module], None]] = []
    if branch.name == branch.block:
        ways.append(lambda model: model.set_submodule(branch.block, nn.Identity()))
    parts = _parts(graph, branch)
    if parts:

        def hollow(model: nn.Module) -> None:
            for part in parts[:-1]:
                model.set_submodule(part, nn.Identity())
            model.set_submodule(parts[-1], Nothing())

        ways.append(hollow)
    return ways


def _parts(graph: Graph, branch: Branch) -> list[str]:
    """The direct parts of the block that run for this branch alone, in the order of their first
    operators.
    """
    prefix = f"{branch.block}." if branch.block else ""
    inside, outside = dict[str, None](), set[str]()
    members = set(branch.operators)
    for position, op in enumerate(graph.inference.tape.ops):
        if op.layer.startswith(prefix) and op.layer != branch.block:
            part = prefix + op.layer.removeprefix(prefix).split(".")[0]
            if position in members:
                inside[part] = None
            else:
                outside.add(part)
    return [part for part in inside if part not in outside]


def graph_without_branches(graph: Graph, dropped: Sequence[Branch]) -> fx.GraphModule:
    """The model as a graph of operators in which the sums are skipped, proved; what only the
    branches read is gone.

    Raises:
        SurgeryError: no graph can stand for the model.
    """
    smaller = rewrite(graph, Plan(), dropped=dropped)
    check_branches(graph, dropped, smaller)
    return smaller


def check_branches(graph: Graph, dropped: Sequence[Branch], smaller: nn.Module) -> float:
    """Prove that a smaller model computes what the recorded operators do with the sums of these
    branches skipped.

    On the example inputs, and once more with made-up weights on both sides.

    Returns:
        the largest difference of an output, as a share of the largest output.

    Raises:
        SurgeryError: they differ, or the smaller model does not run.
    """
    worst = _gap(graph, dropped, smaller, graph.state, smaller)
    if not graph.inference.tape.by_value:
        telling = named_state(with_telling_weights(graph.model))
        refilled = copy.deepcopy(smaller)
        with torch.no_grad():
            for name, tensor in named_state(refilled).items():
                if name in telling:
                    tensor.copy_(telling[name])
        _gap(graph, dropped, smaller, telling, refilled, slack=10)
    return worst


def _gap(
    graph: Graph,
    dropped: Sequence[Branch],
    smaller: nn.Module,
    state: dict[str, Tensor],
    model: nn.Module,
    slack: float = 1,
) -> float:
    skipped = {branch.position: branch.stream for branch in dropped}

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[skipped[position]].clone() if position in skipped else op.func(*args, **kwargs)

    inputs = telling_inputs(graph.inputs)
    with preserved_rng():
        torch.manual_seed(0)
        expected = play(graph.inference.tape, state, inputs, step)
    worst = 0.0
    for wanted, found in zip(expected, run_outputs(model, inputs), strict=True):
        gap = difference(wanted, found)
        if gap > slack * tolerance(graph.inference.tape):
            names = ", ".join(branch.name for branch in dropped)
            raise SurgeryError(
                f"without {names} the smaller model differs by {gap:.1e} of the largest output"
            )
        worst = max(worst, gap)
    return worst
