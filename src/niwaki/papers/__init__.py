"""Papers: one recipe each, its tables as data beside it, published and measured side by side."""

from niwaki.papers.baselines.recipe import Baselines
from niwaki.papers.cell import Cell, Outcome, cells_as_rows
from niwaki.papers.mint.recipe import MintRecipe
from niwaki.papers.neuron_merging.recipe import NeuronMerging
from niwaki.papers.recipe import RECIPES, Places, Recipe
from niwaki.papers.rni.recipe import Rni

__all__ = [
    "RECIPES",
    "Baselines",
    "Cell",
    "MintRecipe",
    "NeuronMerging",
    "Outcome",
    "Places",
    "Recipe",
    "Rni",
    "cells_as_rows",
]
