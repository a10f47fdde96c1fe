"""Factors: a learned number on every unit or branch, whose exact zeros say what goes."""

from niwaki.methods.factors._places import Place, places
from niwaki.methods.factors.proximal import (
    AcceleratedProximalGradient,
    Fista,
    block_soft_threshold,
    soft_threshold,
)
from niwaki.methods.factors.scaled import (
    factors_of,
    fold_factors,
    others,
    plan_of_zeros,
    with_factors,
    zero_branches,
)

__all__ = [
    "AcceleratedProximalGradient",
    "Fista",
    "Place",
    "block_soft_threshold",
    "factors_of",
    "fold_factors",
    "others",
    "places",
    "plan_of_zeros",
    "soft_threshold",
    "with_factors",
    "zero_branches",
]
