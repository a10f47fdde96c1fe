"""Residual branches: what is added to a stream that it was computed from, and could be left out as
a whole.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from niwaki.core.errors import SurgeryError
from niwaki.core.plan import Plan
from niwaki.graph.channel_graph import Graph
from niwaki.graph.inference import Work
from niwaki.graph.operators import is_sum
from niwaki.running import Op, Ref


@dataclass(frozen=True)
class Branch:
    """One residual branch: stream + f(stream), of which f can go.

    Attributes:
        name: the block that it is the only branch of; else the part of the block that most of its
            parameters are in.
        block: the layer that adds it.
        position: of the addition on the tape; `stream` says which of its two arguments is the
            stream.
        operators: positions on the tape of all that computes f.
        tensors: parameters and buffers that nothing else reads.
        params, macs: what goes with it; macs of one run on the example inputs.
    """

    name: str
    block: str
    position: int
    stream: int
    operators: tuple[int, ...]
    tensors: tuple[str, ...]
    params: int
    macs: int


def branches(graph: Graph) -> tuple[Branch, ...]:
    """All residual branches whose stream goes past them unchanged, in the order of the tape; nested
    ones are left out.
    """
    tape = graph.inference.tape
    before, after = _dependencies(tape.ops)
    sums = []
    for position, op in enumerate(tape.ops):
        if is_sum(op):
            for stream in (0, 1):
                inside = _inside(position, before[position], stream, before, after)
                if inside and tape.shapes[op.tensors[0].index] == tape.shapes[op.tensors[1].index]:
                    sums.append((position, stream, inside))
    nested = {
        p for position, _, inside in sums for p, _, _ in sums if p in inside and p != position
    }
    kept = [item for item in sums if item[0] not in nested]
    blocks = Counter(tape.ops[position].layer for position, _, _ in kept)
    return tuple(_branch(graph, *item, alone=blocks[tape.ops[item[0]].layer] == 1) for item in kept)


def branches_of(graph: Graph, plan: Plan) -> list[Branch]:
    """The branches that go by a plan, in the order of the tape.

    Raises:
        SurgeryError: the network has no branch of a name.
    """
    if not plan.branches:
        return []
    known = {branch.name: branch for branch in branches(graph)}
    missing = [name for name in plan.branches if name not in known]
    if missing:
        raise SurgeryError(f"the network has no residual branch {missing[0]!r}")
    return [branch for name, branch in known.items() if name in plan.branches]


Before = list[list[int]]
After = dict[int, set[int]]


def _dependencies(ops: list[Op]) -> tuple[Before, After]:
    """For every operator, which ones wrote what it reads, argument by argument (-1: none did); and
    the other way round.
    """
    writer: dict[Ref, int] = {}
    before: Before = []
    after: After = defaultdict(set)
    for position, op in enumerate(ops):
        reads = [writer.get(ref, -1) for ref in op.tensors]
        before.append(reads)
        for source in reads:
            after[source].add(position)
        for ref in op.outputs:
            if ref is not None:
                writer[ref] = position
    return before, after


def _inside(
    position: int, reads: list[int], stream: int, before: Before, after: After
) -> frozenset[int]:
    """The operators of the branch that a sum adds to its argument `stream`; none where it is no
    branch of that stream.
    """
    start, end = reads[stream], reads[1 - stream]
    if start < 0 or end <= start:
        return frozenset()
    ancestors, pending = {end}, [end]
    while pending:
        for source in before[pending.pop()]:
            if source > start and source not in ancestors:
                ancestors.add(source)
                pending.append(source)
    inside: set[int] = set()
    for place in sorted(ancestors):  # in order, so that what an operator reads is settled before it
        if any(source == start or source in inside for source in before[place]):
            inside.add(place)
    # what only parameters make, for this branch alone, belongs to it
    for place in sorted(ancestors - inside, reverse=True):
        if after[place] and after[place] <= inside:
            inside.add(place)
    used_elsewhere = any(not after[place] <= inside for place in inside - {end})
    return (
        frozenset()
        if end not in inside or used_elsewhere or after[end] != {position}
        else frozenset(inside)
    )


def _branch(
    graph: Graph, position: int, stream: int, inside: frozenset[int], alone: bool
) -> Branch:
    tape, state = graph.inference.tape, graph.state
    read_by: dict[str, set[int]] = defaultdict(set)
    for place, op in enumerate(tape.ops):
        for ref in op.tensors:
            if ref in tape.parameters:
                read_by[tape.parameters[ref]].add(place)
    tensors = tuple(name for name, places in read_by.items() if places <= inside)
    learned = {name for name, _ in graph.model.named_parameters()}
    params = {name: state[name].numel() for name in tensors if name in learned}
    block = tape.ops[position].layer
    work: list[Work] = [work for work in graph.inference.work if work.position in inside]
    macs = sum(math.prod(term.size for term in item.terms) for item in work)
    name = (
        block
        if alone and block
        else _largest_part(block, params) or tape.ops[max(inside)].layer or block
    )
    return Branch(
        name, block, position, stream, tuple(sorted(inside)), tensors, sum(params.values()), macs
    )


def _largest_part(block: str, params: dict[str, int]) -> str:
    """The direct part of a block that holds most of these parameters."""
    sizes: Counter[str] = Counter()
    for name, number in params.items():
        part = name.removeprefix(f"{block}." if block else "").split(".")[0]
        sizes[f"{block}.{part}" if block else part] += number
    return sizes.most_common(1)[0][0] if sizes else ""
