"""Weights from files and into models; pruned networks to folders and back."""

from niwaki.checkpoint.artefact import PLAN, RECORD, WEIGHTS, load, save
from niwaki.checkpoint.weights import load_weights, read_weights

__all__ = ["PLAN", "RECORD", "WEIGHTS", "load", "load_weights", "read_weights", "save"]
