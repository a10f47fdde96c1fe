"""Criteria: evidence → one score a unit, high for units that should stay. One method a file."""

from niwaki.criteria.base import CRITERIA, Criterion, refine, score, scored
from niwaki.criteria.bn_scale import BnScale
from niwaki.criteria.fold import Fold
from niwaki.criteria.geometric_median import GeometricMedian
from niwaki.criteria.layer_dependencies import Dependency, Estimation, layer_dependencies
from niwaki.criteria.mint import Mint, unit_scores
from niwaki.criteria.mutual_information import conditional_mutual_information, dependencies
from niwaki.criteria.norm import L1, L2
from niwaki.criteria.random import Random
from niwaki.criteria.reconstruction import Reconstruction

__all__ = [
    "CRITERIA",
    "L1",
    "L2",
    "BnScale",
    "Criterion",
    "Dependency",
    "Estimation",
    "Fold",
    "GeometricMedian",
    "Mint",
    "Random",
    "Reconstruction",
    "conditional_mutual_information",
    "dependencies",
    "layer_dependencies",
    "refine",
    "score",
    "scored",
    "unit_scores",
]
