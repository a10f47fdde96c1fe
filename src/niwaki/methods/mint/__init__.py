"""MINT: which filters matter, by the conditional mutual information between the filters of adjacent
layers (Ganesh et al., 2020).
"""

from niwaki.methods.mint._layer_dependencies import Dependency, Estimation, layer_dependencies
from niwaki.methods.mint.by_layer import PairSettings
from niwaki.methods.mint.criterion import Mint, unit_scores
from niwaki.methods.mint.mutual_information import conditional_mutual_information, dependencies

__all__ = [
    "Dependency",
    "Estimation",
    "Mint",
    "PairSettings",
    "conditional_mutual_information",
    "dependencies",
    "layer_dependencies",
    "unit_scores",
]
