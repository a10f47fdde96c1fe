"""Give the heads of a network a basis of their queries and keys in which the dimensions that go say
least.

The network's weights become others that compute the same; the plain cut of dimensions comes after.
Every head gets a basis of its own, and heads that share keys one together. That nothing else reads
what is turned is not argued but seen: the turned network has to put out what the original does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from niwaki.core.errors import TraceError
from niwaki.core.plan import Plan
from niwaki.graph import Graph, Role
from niwaki.graph.heads import Head, HeadProduct, head_products
from niwaki.graph.operators import NotLinearError
from niwaki.methods.base.cut import Cut
from niwaki.methods.base.evidence import Evidence
from niwaki.methods.heads.basis import paired_basis
from niwaki.methods.heads.moments import Counted, counted, second_moments
from niwaki.methods.heads.rows import with_rows
from niwaki.methods.heads.scale import with_trained_scale
from niwaki.running import plainly, preserved_rng, run, seed_all
from niwaki.running.compare import tolerance, worst

ALLOWED = 10  # times the tolerance of a proof: two networks, of which neither is exact


@dataclass(frozen=True, eq=False)
class Turned:
    """A network with other weights and the same function.

    Attributes:
        graph: of that network; the one that was given where nothing was turned.
        notes: group → what was done, or why nothing could be.
        lost: group → share of the products' mean square that goes, of those that were turned.
        settled: attention whose scale its queries make up for.
    """

    graph: Graph
    notes: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, float] = field(default_factory=dict)
    settled: frozenset[int] = frozenset()

    def told(self, cut: Cut) -> Cut:
        """A cut of this network, with the notes of the groups that were turned."""
        notes = {**cut.notes, **self.notes}
        residuals = {**cut.residuals, **self.lost}
        return replace(cut, notes=notes, residuals=residuals, settled=self.settled)


def turned(evidence: Evidence, plan: Plan, who: str, *, data: bool) -> Turned:
    """Turn the heads of all groups of a plan that are dimensions of queries and keys.

    Args:
        who: the method that asks, for messages.
        data: whether moments are counted on the calibration inputs; else weights tell.
    """
    graph, notes = evidence.graph, {}
    products: dict[str, tuple[HeadProduct, ...]] = {}
    for name in plan.kept:
        try:
            here = head_products(graph, name)
            if here:
                _refuse_others(evidence, here)
                products[name] = here
        except NotLinearError as error:
            notes[name] = f"the dimensions of its heads go as they are: {error}"
    if not products:
        scaled, settled = with_trained_scale(graph, plan)
        return Turned(scaled, notes, settled=settled)
    every = [product for here in products.values() for product in here]
    known = counted(evidence, every, who) if data else {}
    bases: dict[str, _Bases] = {}
    for name, here in products.items():
        try:
            bases[name] = _Bases.of(graph, name, here, known, plan.kept[name])
        except (NotLinearError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            notes[name] = f"the dimensions of its heads go as they are: {why}"
    new, same = _that_compute_the_same(graph, bases)
    rows = max((moments.rows for moments in known.values()), default=0)
    for name in bases:
        notes[name] = (
            f"{bases[name].count} heads got a basis of their own from "
            f"{f'{rows} rows' if data else 'their weights'}: {bases[name].lost:.2%} of their "
            f"products goes{_beside(graph, name)}"
            if name in same
            else "the dimensions of its heads go as they are: others than the products read them"
        )
    scaled, settled = with_trained_scale(new, plan)
    return Turned(scaled, notes, {name: bases[name].lost for name in same}, settled)


def _beside(graph: Graph, name: str) -> str:
    """What goes plainly with the dimensions of queries and keys."""
    read = graph[name].of_role(Role.CONSUMER)
    return f"; the dimensions that {read[0].tensor} reads go as they are" if read else ""


def _refuse_others(evidence: Evidence, products: Sequence[HeadProduct]) -> None:
    """Weights that are no ordinary parameters at hand."""
    if evidence.weights is not None:
        raise NotLinearError("the weights are read from files, one by one")
    made = {item.name for item in evidence.graph.computed}
    for weight in {weight for product in products for weight, _ in product.makers}:
        if weight in made:
            raise NotLinearError(f"{weight} is computed from other tensors")
        if evidence.graph.state[weight].device.type == "meta":
            raise NotLinearError("the weights have no values")


@dataclass(frozen=True, eq=False)
class _Bases:
    """What each head of a group is multiplied by.

    Attributes:
        heads: with the matrix (d, d) that its rows get, and the axis of its weight.
        lost: the share of the products that goes, over all heads.
        count: heads of queries.
    """

    heads: tuple[tuple[Head, int, Tensor], ...]
    lost: float
    count: int

    @classmethod
    def of(
        cls,
        graph: Graph,
        name: str,
        products: Sequence[HeadProduct],
        known: Mapping[str, Counted],
        kept: Sequence[int],
    ) -> _Bases:
        """The bases of a group's heads, from moments counted or of weights."""
        axes = {piece.tensor: piece.axis for piece in graph[name].slices}
        softmax = all(product.softmax for product in products)
        units = torch.as_tensor(list(kept), device="cpu")
        heads: list[tuple[Head, int, Tensor]] = []
        total = gone = 0.0
        sets = _together(products)
        for queries, keys in sets:
            moments = [
                sum(
                    (
                        second_moments(
                            head,
                            axes[head.weight],
                            graph.state,
                            known.get(head.weight),
                            around=softmax and side == 1,
                        )
                        for head in ends
                    ),
                    torch.zeros((), dtype=torch.float64, device="cpu"),
                )
                for side, ends in enumerate((queries, keys))
            ]
            basis = paired_basis(*moments)
            squares = basis.strength.square()
            total, gone = total + float(squares.sum()), gone + float(squares[len(units) :].sum())
            basis = basis.laid(units)
            heads += [(head, axes[head.weight], basis.query) for head in queries]
            heads += [(head, axes[head.weight], basis.key) for head in keys]
        count = sum(len(queries) for queries, _ in sets)
        return cls(tuple(heads), gone / total if total > 0 else 0.0, count)


def _together(products: Sequence[HeadProduct]) -> list[tuple[list[Head], list[Head]]]:
    """Queries and keys that must get one basis, as they meet in some product.

    Raises:
        NotLinearError: something is queries and keys both.
    """
    sets: list[tuple[dict[Head, None], dict[Head, None]]] = []
    for pair in (pair for product in products for pair in product.pairs):
        here = [each for each in sets if pair.query in each[0] or pair.key in each[1]]
        joined: tuple[dict[Head, None], dict[Head, None]] = ({pair.query: None}, {pair.key: None})
        for each in here:
            joined[0].update(each[0])
            joined[1].update(each[1])
        sets = [*(each for each in sets if all(each is not other for other in here)), joined]
    rows = [
        {(head.weight, row) for each in sets for head in each[side] for row in head.rows}
        for side in (0, 1)
    ]
    if rows[0] & rows[1]:
        raise NotLinearError("the same rows are queries and keys")
    return [([*queries], [*keys]) for queries, keys in sets]


def _that_compute_the_same(
    graph: Graph, bases: Mapping[str, _Bases]
) -> tuple[Graph, tuple[str, ...]]:
    """The network with all heads turned that can be, and the groups that were."""
    if not bases:
        return graph, ()
    with preserved_rng():
        wanted = _outputs(graph)
        whole = _with(graph, bases.values())
        if _agree(whole, wanted):
            return whole, tuple(bases)
        same, taken = graph, []
        for name, each in bases.items():
            tried = _with(same, [each])
            if _agree(tried, wanted):
                same = tried
                taken.append(name)
    return same, tuple(taken)


def _outputs(graph: Graph) -> list[Tensor]:
    seed_all(0)
    return run(graph.model, graph.inference.tape, graph.inputs, plainly)


def _agree(graph: Graph, wanted: list[Tensor]) -> bool:
    try:
        return worst(wanted, _outputs(graph)) <= ALLOWED * tolerance(graph.inference.tape)
    except TraceError:
        return False


def _with(graph: Graph, bases: Iterable[_Bases]) -> Graph:
    """The graph of a copy in which these heads are turned."""
    return with_rows(graph, (item for each in bases for item in each.heads))
