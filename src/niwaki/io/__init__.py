"""Pruned networks to folders and back, weights from files, and files for other runtimes."""

from niwaki.io.artefact import load, read_blueprint, read_record, save
from niwaki.io.blueprint import Blueprint
from niwaki.io.exported import Exported
from niwaki.io.hub import push_to_hub
from niwaki.io.manifest import PLAN, RECORD, WEIGHTS
from niwaki.io.onnx import export_onnx
from niwaki.io.program import export_program
from niwaki.io.quantise import quantise_onnx
from niwaki.io.scores import Scores, holds_scores, load_scores, save_scores
from niwaki.io.session import OnnxClassifier
from niwaki.io.sharded import ShardedWeights, open_weights, shrink_files
from niwaki.io.weights import load_weights, read_weights

__all__ = [
    "PLAN",
    "RECORD",
    "WEIGHTS",
    "Blueprint",
    "Exported",
    "OnnxClassifier",
    "Scores",
    "ShardedWeights",
    "export_onnx",
    "export_program",
    "holds_scores",
    "load",
    "load_scores",
    "load_weights",
    "open_weights",
    "push_to_hub",
    "quantise_onnx",
    "read_blueprint",
    "read_record",
    "read_weights",
    "save",
    "save_scores",
    "shrink_files",
]
