"""The recorded operators as a `torch.fx` graph, their sizes restated."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph
from niwaki.graph.operators import ATTENTION, over_image
from niwaki.graph.terms import Term, Var, resolve
from niwaki.running import Op, Ref, as_arguments, call, copied, seed_all, undisturbed
from niwaki.surgery.kept_sizes import AxisSize, KeptSizes
from niwaki.surgery.restated import RESTATED

_ATTENTION = frozenset(f"aten.{name}" for name in ATTENTION)


class OperatorGraph:
    """Writes the tape's operators as nodes, their sizes restated.

    Args:
        root: holds the smaller parameters and buffers by name; constants are added to it.
        dropped: branches whose sums are skipped.
        fixed: the graph refuses batches of another size than the example's.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        root: nn.Module,
        dropped: Sequence[Branch] = (),
        *,
        fixed: bool = False,
    ) -> None:
        self._sums = {branch.position: branch.stream for branch in dropped}
        self._left_out = {position for branch in dropped for position in branch.operators}
        self._graph, self._root, self._fixed = graph, root, fixed
        self._tape, self._axes = graph.inference.tape, graph.inference.axes
        self._nodes: dict[Ref, fx.Node] = {}
        self._fx = fx.Graph()
        self._batches: dict[Var, fx.Node] = {}
        self._sizes = KeptSizes(graph, plan, self._batches)
        self._new_biases = {name for name, _ in root.named_parameters()} - graph.state.keys()

    def write(self) -> fx.Graph:
        """The graph; to be asked for once.

        Raises:
            SurgeryError: the model takes tensors inside of containers, or returns another thing
                than tensors in tuples, lists and dicts.
        """
        self._inputs()
        for ref, name in self._tape.parameters.items():
            self._nodes[ref] = self._fx.get_attr(name)
        for number, (ref, tensor) in enumerate(self._tape.constants.items()):
            self._root.register_buffer(
                f"constant_{number}", tensor.detach().clone(), persistent=False
            )
            self._nodes[ref] = self._fx.get_attr(f"constant_{number}")
        biases = self._biases()
        for position, op in enumerate(self._tape.ops):
            if position in self._sums:
                self._nodes[op.result] = self._nodes[op.tensors[self._sums[position]]]
            elif position not in self._left_out:
                self._operator(op)
                if position in biases:
                    self._add_bias(op, biases[position])
        self._fx.output(self._outputs())
        for node in self._fx.nodes:
            if node.op == "get_attr" and not node.users:
                self._fx.erase_node(node)  # and the module does not keep it
        return self._fx

    def _inputs(self) -> None:
        args, kwargs = as_arguments(self._graph.inputs)
        named = [
            *((f"x{i}" if len(args) > 1 else "x", value) for i, value in enumerate(args)),
            *kwargs.items(),
        ]
        refs = iter(self._tape.inputs)
        for name, value in named:
            if isinstance(value, Tensor):
                node = self._fx.placeholder(name)
                ref = next(refs)
                self._nodes[ref] = node
                if self._axes[ref]:
                    self._batch(node, resolve(self._axes[ref][0]))
            elif any(isinstance(leaf, Tensor) for leaf in tree_flatten(value)[0]):
                raise SurgeryError(
                    f"the input {name!r} holds tensors inside of a container, which a graph "
                    "cannot take"
                )
            else:
                self._fx.placeholder(name, default_value=value)

    def _batch(self, node: fx.Node, term: Term) -> None:
        """Take the size of a batch from the input at hand, or hold the input to the size that the
        graph is for.
        """
        if self._fixed:
            size = self._fx.call_function(torch.ops.aten.sym_size.int, (node, 0))
            message = (
                f"this graph of operators is for batches of {term.size}; prune with example "
                "inputs of the size wanted"
            )
            self._fx.call_function(
                torch._assert, (self._fx.call_function(operator.eq, (size, term.size)), message)
            )
        elif isinstance(term, Var) and term.size > 1 and term not in self._batches:
            self._batches[term] = self._fx.call_function(torch.ops.aten.sym_size.int, (node, 0))

    def _operator(self, op: Op) -> None:
        if op.name in _ATTENTION:
            self._attention(op)
            return
        args, kwargs = op.args, op.kwargs
        restate = RESTATED.get(op)
        if restate is not None:
            args = restate(self._sizes, op)
        values = tree_map(self._value, (args, kwargs))
        node = self._fx.call_function(op.func, values[0], values[1])
        if [str(item.type) for item in op.func._schema.returns] == ["Tensor"]:
            self._nodes[op.result] = node
            return
        for place, ref in enumerate(op.outputs):
            if ref is not None:
                self._nodes[ref] = self._fx.call_function(operator.getitem, (node, place))

    def _biases(self) -> dict[int, str]:
        """Operator → the bias that a mixing's shift has given its layer, which had none."""
        origins = self._graph.inference.origins
        biases = {}
        for read in self._graph.inference.reads:
            weight = origins[read.weight].names[0] if read.weight is not None else ""
            bias = weight.removesuffix("weight") + "bias"
            if bias in self._new_biases:
                biases[read.position] = bias
        return biases

    def _add_bias(self, op: Op, name: str) -> None:
        bias = self._fx.get_attr(name)
        if over_image(op):  # channels are its second axis
            shape = [-1, *(1 for _ in self._axes[op.result][2:])]
            bias = self._fx.call_function(torch.ops.aten.view.default, (bias, shape))
        self._nodes[op.result] = self._fx.call_function(
            torch.ops.aten.add.Tensor, (self._nodes[op.result], bias)
        )

    def _attention(self, op: Op) -> None:
        """The kernel that torch chose cannot be trained; the function that chose it can."""
        mask = next((op[name] for name in ("attn_mask", "attn_bias") if op.takes(name)), None)
        q, k, v = op["query"], op["key"], op["value"]
        settings = {
            "attn_mask": self._value(mask),
            "is_causal": op["is_causal"],
            "scale": op["scale"],
            "enable_gqa": self._axes[q][-3].size != self._axes[k][-3].size,
        }
        operands = tuple(self._nodes[ref] for ref in (q, k, v))
        attention = torch.nn.functional.scaled_dot_product_attention
        self._nodes[op.result] = self._fx.call_function(attention, operands, settings)

    def _value(self, leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return self._nodes[leaf]
        if isinstance(leaf, AxisSize):
            if leaf.batch is None:
                return leaf.number
            batch = self._batches[leaf.batch]
            return (
                batch
                if leaf.number == 1
                else self._fx.call_function(operator.mul, (batch, leaf.number))
            )
        return leaf

    def _outputs(self) -> Any:
        flat, form = tree_flatten(outputs(self._graph.model, self._graph.inputs))
        if not all(isinstance(leaf, Tensor) for leaf in flat) or len(flat) != len(
            self._tape.outputs
        ):
            raise SurgeryError(
                "the model returns more than tensors in tuples, lists and dicts, which a graph "
                "cannot"
            )
        return tree_unflatten([self._nodes[ref] for ref in self._tape.outputs], form)


def outputs(model: nn.Module, inputs: Any) -> Any:
    """What a model answers; the model, the inputs and all chance are left as they were."""
    with undisturbed(model):
        seed_all(0)
        return call(model, copied(inputs))
