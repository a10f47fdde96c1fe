"""Surgery: model + plan + mixings → the smaller module, checked against the full-size one with the same units masked."""

from niwaki.surgery.blame import Blame
from niwaki.surgery.check import check
from niwaki.surgery.config import follow_config
from niwaki.surgery.cost import MEASURED, MeasuredCost
from niwaki.surgery.depth import Nothing, check_branches, graph_without_branches, without_branches
from niwaki.surgery.lineage import remember
from niwaki.surgery.optimizer import hand_over
from niwaki.surgery.reference import reference_outputs
from niwaki.surgery.rewrite import rewrite
from niwaki.surgery.shrink import cut_tensors, shrink
from niwaki.surgery.sizes import size_guesses
from niwaki.surgery.structure import check_structure

__all__ = [
    "MEASURED",
    "Blame",
    "MeasuredCost",
    "Nothing",
    "check",
    "check_branches",
    "check_structure",
    "cut_tensors",
    "follow_config",
    "graph_without_branches",
    "hand_over",
    "reference_outputs",
    "remember",
    "rewrite",
    "shrink",
    "size_guesses",
    "without_branches",
]
