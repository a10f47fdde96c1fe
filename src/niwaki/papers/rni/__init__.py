"""Receding Neuron Importances for Structured Pruning (2022), with its baselines L1 and UCS."""

from niwaki.papers.rni.experiment import Method, Setting, importances
from niwaki.papers.rni.logs import Logs
from niwaki.papers.rni.notebook import prune_finetune, train
from niwaki.papers.rni.recipe import Rni
from niwaki.papers.rni.runs import CellRun, committed

__all__ = [
    "CellRun",
    "Logs",
    "Method",
    "Rni",
    "Setting",
    "committed",
    "importances",
    "prune_finetune",
    "train",
]
