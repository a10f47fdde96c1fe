"""Ganesh, Corso, Yasaei Sekeh: MINT, Deep Network Compression via Mutual Information-based Neuron
Trimming, ICPR 2020.
"""

from niwaki.papers.mint.recipe import MintRecipe

__all__ = ["MintRecipe"]
