"""The operator table: ATen operator → how the axes of its operands and results hang together.

One small function a family of operators, each in the file of its kind. A rule states the results'
axes, unifies what must be the same channels, freezes what must keep its size, notes the reads, and
returns what the operator does to channels that pass through. A rule that meets a form it does not
know returns None, and the operator counts as unknown.
"""

from niwaki.graph.inference import Rule
from niwaki.graph.operators import (
    elementwise,
    fourier,
    indexing,
    normalisation,
    products,
    reductions,
    sampling,
    shapes,
)

RULES: dict[str, Rule] = {
    f"aten.{name}": rule
    for module in (
        elementwise,
        products,
        normalisation,
        reductions,
        shapes,
        indexing,
        sampling,
        fourier,
    )
    for name, rule in module.RULES.items()
}

__all__ = ["RULES"]
