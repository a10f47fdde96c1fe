"""Folding: units that compute alike become one (Wang et al., ICLR 2025)."""

from niwaki.methods.folding.criterion import FoldClusters
from niwaki.methods.folding.repair import Fold

__all__ = ["Fold", "FoldClusters"]
