"""What a walk over the operators knows so far, and may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from niwaki.graph import Graph
from niwaki.graph.inference import Norm
from niwaki.methods.data_free.gaussian import Gaussian
from niwaki.methods.data_free.laid import Laid
from niwaki.methods.data_free.prior import Prior
from niwaki.running import Op, Ref

Result: TypeAlias = "Laid | list[Laid] | None"


@dataclass
class Walk:
    """What is known of the values so far; tensors that are made of parameters alone are
    computed.
    """

    graph: Graph
    prior: Prior
    norms: dict[int, Norm]
    known: dict[Ref, Laid] = field(default_factory=dict)
    tensors: dict[Ref, Tensor] = field(default_factory=dict)
    position: int = 0

    def operand(self, op: Op, name: str | None = None) -> Laid | None:
        """What is known of an argument by name; of the first one without it."""
        ref = op.first if name is None else op[name]
        return self.known.get(ref) if isinstance(ref, Ref) else None

    def tensor(self, ref: Any) -> Tensor | None:
        return self.tensors.get(ref) if isinstance(ref, Ref) else None

    def shape(self, ref: Ref) -> tuple[int, ...]:
        return self.graph.inference.tape.shapes[ref.index]

    def along(self, op: Op, axis: int) -> Gaussian:
        """The first operand's channels in the order of one axis; white where nothing is known of
        it.
        """
        laid, size = self.operand(op), self.shape(op.first)[axis]
        here = None if laid is None else laid.on(axis, size)
        if laid is None or here is None:
            return Gaussian.white(size)
        return laid.of.pick(here[0])


Rule = Callable[[Walk, Op], Result]
