"""The smaller network as a graph of operators, for models whose own code cannot be made to fit.

The recorded operators become a `torch.fx.GraphModule`. Where the recorded run had a size among an
operator's arguments, the graph has what is left of that size: the axis is a term, and the term
says it. A size that is a multiple of the batch is computed from the batch at hand. Parameters and
buffers keep their names, so that the state dict is the one that the module would have. The graph
is the path that the model took in evaluation mode: a BatchNorm goes on using its statistics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from niwaki.core.blocks import BlockPlan
from niwaki.core.errors import SurgeryError
from niwaki.graph import Graph, branches_of
from niwaki.methods.base.cut import Cut
from niwaki.running import batch_size, copied, named_state, tensors_in
from niwaki.running.compare import difference, tolerance
from niwaki.surgery._shrink import fill, shrink_plainly
from niwaki.surgery.operator_graph import OperatorGraph, outputs


def rewrite(cut: Cut) -> fx.GraphModule:
    """A smaller graph of operators that computes what the masked model computes; the model is not
    touched.

    Its forward takes what the model takes, tensors by position or by the same keywords, and returns
    it in the same containers. The batch may be of any size if the example inputs have at least two
    samples and samples do not depend on each other; else only of theirs, and the graph says so. The
    result is not checked here: `niwaki.check` does that.

    Blocks of weights stay in ordinary weights, with zeros between them; of branches that go the
    sums are skipped.

    Raises:
        SurgeryError: the model's path depends on values, it takes tensors inside of containers,
            returns another thing than tensors in tuples, lists and dicts, or has parameters under
            names that a `torch.fx.GraphModule` uses itself.
    """
    graph, plan = cut.graph, cut.plan
    tape, dropped = graph.inference.tape, branches_of(graph, plan)
    if tape.by_value:
        raise SurgeryError(
            "the model's path depends on the values of its inputs, so that one graph cannot stand "
            "for it"
        )
    _refuse_taken_names(graph)
    root = _Holder()
    smaller = shrink_plainly(
        cut.with_plan(replace(plan, sizes={}, branches={}, blocks=BlockPlan()))
    )
    fill(smaller, cut)
    learned = {name: parameter.requires_grad for name, parameter in smaller.named_parameters()}
    for name, tensor in named_state(smaller).items():
        value = tensor.detach()
        _attach(root, name, nn.Parameter(value, learned[name]) if name in learned else value)
    name = f"{type(graph.model).__name__}Graph"
    any_batch = OperatorGraph(graph, plan, root, dropped).write()
    module = fx.GraphModule(root, any_batch, name).train(False)
    if not _takes_any_batch(module, graph):
        one_batch = OperatorGraph(graph, plan, root, dropped, fixed=True).write()
        module = fx.GraphModule(root, one_batch, name).train(False)
    return module


def _refuse_taken_names(graph: Graph) -> None:
    """Parameters keep their names, but for those that any graph module has for itself."""
    taken = {*dir(fx.GraphModule), *vars(fx.GraphModule(nn.Module(), fx.Graph()))}
    taken -= {*dir(nn.Module), *vars(nn.Module())}
    for name in graph.state:
        first = name.partition(".")[0]
        if first in taken:
            raise SurgeryError(
                f"{name} cannot keep its name in a graph of operators, which has {first!r} for "
                'itself; give it another name, or ask for form="module"'
            )


def _takes_any_batch(module: nn.Module, graph: Graph) -> bool:
    """Whether a batch with its first sample once more, and one without its last, give the same for
    every sample.
    """
    size = batch_size(graph.inputs)
    if size < 2 or any(tensor.is_meta for tensor in graph.state.values()):
        return False

    def longer(leaf: Any) -> Any:
        return torch.cat([leaf, leaf[:1]]) if _is_batch(leaf, size) else leaf

    def shorter(leaf: Any) -> Any:
        return leaf[:-1] if _is_batch(leaf, size) else leaf

    allowed = tolerance(graph.inference.tape)
    try:
        before = list(tensors_in(outputs(module, graph.inputs)))
        for other in (longer, shorter):
            after = tensors_in(outputs(module, tree_map(other, copied(graph.inputs))))
            wanted = [other(tensor) for tensor in before]
            if any(difference(a, b) > allowed for a, b in zip(wanted, after, strict=True)):
                return False
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def _is_batch(leaf: Any, size: int) -> bool:
    return isinstance(leaf, Tensor) and bool(leaf.ndim) and len(leaf) == size


class _Holder(nn.Module):
    """What parameters and buffers hang on, under their names."""


def _attach(root: nn.Module, name: str, value: Tensor) -> None:
    *way, last = name.split(".")
    for step in way:
        if not hasattr(root, step):
            root.add_module(step, _Holder())
        root = getattr(root, step)
    if isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)
