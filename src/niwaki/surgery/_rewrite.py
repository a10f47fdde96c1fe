"""The smaller network as a graph of operators, for models whose own code cannot be made to fit.

The recorded operators become a `torch.fx.GraphModule`. Where the recorded run had a size among an
operator's arguments, the graph has what is left of that size: the axis is a term, and the term
says it. A size that is a multiple of the batch is computed from the batch at hand. Parameters and
buffers keep their names, so that the state dict is the one that the module would have. The graph
is the path that the model took in evaluation mode: a BatchNorm goes on using its statistics.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from niwaki.core.blocks import BlockPlan
from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph import Branch, Graph, branches_of
from niwaki.graph.terms import Term, Var, keep_mask, kept_size, leaves, resolve
from niwaki.methods.base.cut import Cut
from niwaki.running import (
    Op,
    Ref,
    as_arguments,
    batch_size,
    call,
    copied,
    named_state,
    seed_all,
    tensors_in,
    undisturbed,
)
from niwaki.running.compare import difference, tolerance
from niwaki.surgery._shrink import fill, shrink_plainly


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
        SurgeryError: the model's path depends on values, it takes tensors inside of containers, or
            returns another thing than tensors in tuples, lists and dicts.
    """
    graph, plan = cut.graph, cut.plan
    tape, dropped = graph.inference.tape, branches_of(graph, plan)
    if tape.by_value:
        raise SurgeryError(
            "the model's path depends on the values of its inputs, so that one graph cannot stand "
            "for it"
        )
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
    module = fx.GraphModule(root, _Writer(graph, plan, root, dropped).write(), name).train(False)
    if not _takes_any_batch(module, graph):
        module = fx.GraphModule(
            root, _Writer(graph, plan, root, dropped, fixed=True).write(), name
        ).train(False)
    return module


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
        before = list(tensors_in(_quiet(module, graph.inputs)))
        for other in (longer, shorter):
            after = tensors_in(_quiet(module, tree_map(other, copied(graph.inputs))))
            wanted = [other(tensor) for tensor in before]
            if any(difference(a, b) > allowed for a, b in zip(wanted, after, strict=True)):
                return False
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def _is_batch(leaf: Any, size: int) -> bool:
    return isinstance(leaf, Tensor) and bool(leaf.ndim) and len(leaf) == size


def _quiet(model: nn.Module, inputs: Any) -> Any:
    with undisturbed(model):
        seed_all(0)
        return call(model, copied(inputs))


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


@dataclass(frozen=True)
class _Size:
    """A number of positions: so many, times the batch of one of the inputs where there is one."""

    number: int
    batch: Var | None = None


class _Writer:
    """Writes the tape's operators as nodes, their sizes restated."""

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
        self._masks = graph.masks(plan.kept)
        self._counts = {var: int(mask.sum()) for var, mask in self._masks.items()}
        self._nodes: dict[Ref, fx.Node] = {}
        self._fx = fx.Graph()
        self._batches: dict[Var, fx.Node] = {}
        self._new_biases = {name for name, _ in root.named_parameters()} - graph.state.keys()

    def write(self) -> fx.Graph:
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
        if op.name.startswith("aten._scaled_dot_product"):
            self._attention(op)
            return
        args, kwargs = op.args, op.kwargs
        restate = _RESTATED.get(op.name)
        if restate is not None:
            args = restate(self, op)
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
        if op.name == "aten.convolution":  # channels are its second axis
            shape = [-1, *(1 for _ in self._axes[op.result][2:])]
            bias = self._fx.call_function(torch.ops.aten.view.default, (bias, shape))
        self._nodes[op.result] = self._fx.call_function(
            torch.ops.aten.add.Tensor, (self._nodes[op.result], bias)
        )

    def _attention(self, op: Op) -> None:
        """The kernel that torch chose cannot be trained; the function that chose it can."""
        known = {argument.name for argument in op.func._schema.arguments}
        mask = next((op[name] for name in ("attn_mask", "attn_bias") if name in known), None)
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
        if isinstance(leaf, _Size):
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
        flat, form = tree_flatten(_quiet(self._graph.model, self._graph.inputs))
        if not all(isinstance(leaf, Tensor) for leaf in flat) or len(flat) != len(
            self._tape.outputs
        ):
            raise SurgeryError(
                "the model returns more than tensors in tuples, lists and dicts, which a graph "
                "cannot"
            )
        return tree_unflatten([self._nodes[ref] for ref in self._tape.outputs], form)

    # sizes, for the functions below

    def size(self, term: Term) -> _Size:
        """What is left of an axis."""
        left = kept_size(term, self._counts)
        batches = [var for var in leaves(term) if var in self._batches]
        if len(batches) == 1 and left % batches[0].size == 0:
            return _Size(left // batches[0].size, batches[0])
        return _Size(left)

    def shape(self, ref: Ref, *, new: bool = False) -> list[_Size]:
        """What is left of every axis of a value.

        Args:
            new: it is made of nothing; where no axis is known to be the batch, a first one of its
                size is taken to be it.
        """
        sizes = [self.size(term) for term in self._axes[ref]]
        batch = next(iter(self._batches), None)
        known = any(size.batch is not None for size in sizes)
        if new and batch is not None and not known and sizes and sizes[0] == _Size(batch.size):
            sizes[0] = _Size(1, batch)
        return sizes

    def place(self, term: Term, position: int) -> int:
        """Where a position of an axis lies among those that are left."""
        if position <= 0 or not any(var in self._masks for var in leaves(term)):
            return position
        return (
            int(keep_mask(term, self._masks)[:position].sum()) if position < term.size else position
        )

    def terms(self, ref: Ref) -> list[Term]:
        return self._axes[ref]


def _to_shape(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """view, expand and others: (x, sizes); sizes of what comes out."""
    return (op.args[0], writer.shape(op.result, new=".new_" in op.name), *op.args[2:])


def _of_shape(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """zeros and others: (sizes)."""
    return (writer.shape(op.result, new=True), *op.args[1:])


def _parts(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """split by one size or by several: as many parts, of what is left of each."""
    sizes = [writer.size(writer.terms(ref)[op["dim"]]) for ref in op.outputs if ref is not None]
    return (op.args[0], sizes if isinstance(op.args[1], (list, tuple)) else sizes[0], *op.args[2:])


def _slice(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """slice: both ends move with what is left before them."""
    term = writer.terms(op["self"])[op["dim"]]
    ends = {
        name: writer.place(term, _from_start(op[name], term.size))
        for name in ("start", "end")
        if isinstance(op[name], int)
    }
    return _changed(op, ends)


def _select(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """select: the position moves with what is left before it."""
    term = writer.terms(op["self"])[op["dim"]]
    return _changed(op, {"index": writer.place(term, _from_start(op["index"], term.size))})


def _from_start(position: int, size: int) -> int:
    return position + size if position < 0 else position


def _pad(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """constant_pad_nd: what is left of each pad; they are listed from the last axis on, two an
    axis.
    """
    pads, out = list(op["pad"]), writer.terms(op.result)
    for place in range(0, len(pads), 2):
        term = out[len(out) - 1 - place // 2]
        before, after = pads[place], pads[place + 1]
        if before > 0:
            pads[place] = writer.place(term, before)
        if after > 0:
            pads[place + 1] = writer.size(term).number - writer.place(term, term.size - after)
    return _changed(op, {"pad": pads})


def _layer_norm(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """native_layer_norm: it states the sizes of the axes that it normalises, the last ones."""
    axes = len(op["normalized_shape"])
    return _changed(op, {"normalized_shape": writer.shape(op["input"])[-axes:]})


def _group_norm(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """native_group_norm: it states its numbers of samples (N), channels (C) and groups."""
    batch, channels = writer.shape(op["input"])[:2]
    groups = _number_of_groups(writer, op, op["group"])
    return _changed(op, {"N": batch, "C": channels, "group": groups})


def _convolution(writer: _Writer, op: Op) -> tuple[Any, ...]:
    """convolution: its number of groups."""
    return _changed(op, {"groups": _number_of_groups(writer, op, op["groups"])})


def _changed(op: Op, changes: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments that an operator was given by place, some of them exchanged by name."""
    names = [argument.name for argument in op.func._schema.arguments]
    return tuple(changes.get(name, value) for name, value in zip(names, op.args, strict=False))


def _number_of_groups(writer: _Writer, op: Op, groups: int) -> int:
    """Groups that are left: the rule that read the operator noted their term."""
    noted = [
        n.term
        for n in writer._graph.inference.numbers
        if writer._tape.ops[n.position] is op and "groups" in n.role
    ]
    return writer.size(noted[0]).number if noted else groups


Restate = Callable[[_Writer, Op], tuple[Any, ...]]
_RESTATED: dict[str, Restate] = {
    **dict.fromkeys(
        (
            "aten.view",
            "aten._unsafe_view",
            "aten.reshape",
            "aten.expand",
            "aten.new_zeros",
            "aten.new_empty",
            "aten.new_full",
        ),
        _to_shape,
    ),
    **dict.fromkeys(
        ("aten.zeros", "aten.ones", "aten.empty", "aten.full", "aten.rand", "aten.randn"), _of_shape
    ),
    **dict.fromkeys(
        (
            "aten.split",
            "aten.split_with_sizes",
            "aten.unsafe_split",
            "aten.unsafe_split_with_sizes",
        ),
        _parts,
    ),
    "aten.slice": _slice,
    "aten.select": _select,
    "aten.constant_pad_nd": _pad,
    "aten.native_layer_norm": _layer_norm,
    "aten.native_group_norm": _group_norm,
    "aten.convolution": _convolution,
}
