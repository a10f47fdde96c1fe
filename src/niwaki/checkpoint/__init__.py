"""Weights from files and into models; pruned networks to folders and back."""

from niwaki.checkpoint.artefact import load, read_blueprint, read_record, save
from niwaki.checkpoint.blueprint import Blueprint
from niwaki.checkpoint.manifest import PLAN, RECORD, WEIGHTS
from niwaki.checkpoint.scores import Scores, holds_scores, load_scores, save_scores
from niwaki.checkpoint.sharded import ShardedWeights, open_weights, shrink_files
from niwaki.checkpoint.weights import load_weights, read_weights

__all__ = [
    "PLAN",
    "RECORD",
    "WEIGHTS",
    "Blueprint",
    "Scores",
    "ShardedWeights",
    "holds_scores",
    "load",
    "load_scores",
    "load_weights",
    "open_weights",
    "read_blueprint",
    "read_record",
    "read_weights",
    "save",
    "save_scores",
    "shrink_files",
]
