"""Depth: whole residual branches leave a network, those first that change their stream least.

The score of a branch is its block influence: 1 - cos(x, x + f(x)), the mean over samples, of the
stream before and behind the sum. Source: Men et al., ShortGPT: Layers in Large Language Models are
More Redundant Than You Expect, 2024 (arXiv 2403.03853), eq. 1, there taken over whole blocks and
the last axis; here over a branch and all that a sample holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from niwaki.core.errors import BudgetError, SettingError
from niwaki.graph import Branch, Graph, branches, trace
from niwaki.methods.base.evidence import Calibration
from niwaki.pruning.branches import graph_without_branches, without_branches
from niwaki.pruning.search import Form
from niwaki.running import Inputs, Op, run


@dataclass(frozen=True)
class Shallower:
    """A network without some of its branches.

    Attributes:
        model: of the original's class with `Identity` and `Nothing` where branches were; or, of
            form "graph", a `torch.fx.GraphModule`.
        dropped: names of the branches that are gone.
        kept: names of branches that were to go and could not: the class's code cannot do without
            them.
        influence: branch → block influence, in [0, 2]; of all branches.
    """

    model: nn.Module
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    influence: Mapping[str, float]


def drop_branches(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    share: float | None = None,
    names: str | Sequence[str] = (),
    calibration: Calibration | Iterable[Inputs] | Callable[[], Iterable[Inputs]] | None = None,
    form: Form = "module",
) -> Shallower:
    """A copy of a network without whole residual branches, proved; the network itself is not
    touched.

    It can be pruned on, or trained, or kept as a state dict: the same call with `names` of what was
    dropped makes the module again that takes it.

    Args:
        share: of the branches, in [0, 1), those of the least influence; or
        names: glob patterns of branches, as `niwaki.branches` lists them.
        calibration: unlabelled inputs that the influence is taken on; without them the example
            inputs are.
        form: see `niwaki.prune`; "graph" does without any branch.

    Raises:
        SettingError: neither or both of `share` and `names`, or a pattern that matches no branch.
        BudgetError: the share is not in [0, 1), or the network has no residual branch.
        TraceError: the model cannot be run on the inputs.
        SurgeryError: no graph can stand for the model.
    """
    patterns = (names,) if isinstance(names, str) else tuple(names)
    if (share is None) == (not patterns):
        raise SettingError(
            "say which branches go: share=0.25 for the least influential quarter, or "
            "names=('layer3.*',)"
        )
    graph = trace(model, example_inputs)
    found = branches(graph)
    if not found:
        raise BudgetError(
            "the network has no residual branch: no sum of a stream and what was computed from it "
            "alone"
        )
    batches = Calibration.of([example_inputs] if calibration is None else calibration)
    influence = block_influence(graph, found, batches)
    chosen = _by_name(found, patterns) if patterns else _least(found, influence, share)
    if form == "graph":
        return Shallower(
            graph_without_branches(graph, chosen), tuple(b.name for b in chosen), (), influence
        )
    smaller, failed = without_branches(graph, chosen)
    return Shallower(
        smaller, tuple(b.name for b in chosen if b.name not in failed), failed, influence
    )


def _by_name(found: Sequence[Branch], patterns: Sequence[str]) -> list[Branch]:
    for pattern in patterns:
        if not any(fnmatchcase(branch.name, pattern) for branch in found):
            known = ", ".join(branch.name for branch in found[:8])
            raise SettingError(
                f"no branch is named like {pattern!r}; branches are: "
                f"{known}{', …' * (len(found) > 8)}"
            )
    return [
        branch for branch in found if any(fnmatchcase(branch.name, pattern) for pattern in patterns)
    ]


def _least(
    found: Sequence[Branch], influence: Mapping[str, float], share: float | None
) -> list[Branch]:
    if share is None or not 0 <= share < 1:
        raise BudgetError(
            f"the share of branches to drop must be in [0, 1), where 0.5 drops half; got {share}"
        )
    going = sorted(found, key=lambda branch: influence[branch.name])[: round(share * len(found))]
    return sorted(going, key=lambda branch: branch.position)


def block_influence(
    graph: Graph, found: Sequence[Branch], calibration: Calibration
) -> dict[str, float]:
    """How much each branch turns its stream: 1 - cos(x, x + f(x)), the mean over samples, in [0,
    2].
    """
    at = {branch.position: branch for branch in found}
    totals = {branch.name: 0.0 for branch in found}
    samples = dict.fromkeys(totals, 0)

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        branch = at.get(position)
        stream = None if branch is None else args[branch.stream].double().flatten(1)
        result = op.func(*args, **kwargs)
        if branch is not None and stream is not None:
            cosine = torch.cosine_similarity(stream, result.double().flatten(1), dim=1)
            totals[branch.name] += float((1 - cosine).sum())
            samples[branch.name] += len(cosine)
        return result

    for inputs, _ in calibration.batches():
        run(graph.model, graph.inference.tape, inputs, step)
    return {name: total / max(1, samples[name]) for name, total in totals.items()}
