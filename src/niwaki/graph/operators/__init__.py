"""The operator table: ATen operator → how the axes of its operands and results hang together.

One small function a family of operators, each in the file of its kind. A rule states the results'
axes, unifies what must be the same channels, freezes what must keep its size, notes the reads, and
returns what the operator does to channels that pass through. A rule that meets a form it does not
know returns None, and the operator counts as unknown. Rules are the first column of what is known
of an operator; `niwaki.operator` lays all columns side by side.
"""

from niwaki.graph.facts import Facts
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
from niwaki.graph.operators.elementwise import is_function, is_sum
from niwaki.graph.operators.normalisation import BATCH_NORMS, OWN_SIZES
from niwaki.graph.operators.projections import Factor, NotLinearError
from niwaki.graph.operators.weighted import (
    ATTENTION,
    WEIGHTED,
    Weighted,
    is_attention,
    over_image,
)

AXES = Facts(
    "axes",
    "how the axes of operands and results hang together, and what is summed over; tracing asks",
    {
        name: rule
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
    },
)

__all__ = [
    "ATTENTION",
    "AXES",
    "BATCH_NORMS",
    "OWN_SIZES",
    "WEIGHTED",
    "Factor",
    "Facts",
    "NotLinearError",
    "Weighted",
    "is_attention",
    "is_function",
    "is_sum",
    "over_image",
]
