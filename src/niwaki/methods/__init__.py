"""One file or folder a method, under the name that the field gives it: its score, its penalty and
its repair side by side.
"""

from niwaki.methods import (
    auto,
    batchnorm_scale,
    batchnorm_statistics,
    data_free,
    folding,
    geometric_median,
    group_lasso,
    matching,
    mint,
    neuron_merging,
    none,
    norms,
    random,
    reconstruction,
    rni,
    slimming,
)

__all__ = [
    "auto",
    "batchnorm_scale",
    "batchnorm_statistics",
    "data_free",
    "folding",
    "geometric_median",
    "group_lasso",
    "matching",
    "mint",
    "neuron_merging",
    "none",
    "norms",
    "random",
    "reconstruction",
    "rni",
    "slimming",
]
