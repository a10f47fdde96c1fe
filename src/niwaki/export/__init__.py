"""Pruned networks for other runtimes: ONNX and torch.export files, each run and compared with the network before it counts."""

from niwaki.export.exported import Exported
from niwaki.export.onnx import export_onnx
from niwaki.export.program import export_program
from niwaki.export.quantise import quantise_onnx
from niwaki.export.session import OnnxClassifier

__all__ = ["Exported", "OnnxClassifier", "export_onnx", "export_program", "quantise_onnx"]
