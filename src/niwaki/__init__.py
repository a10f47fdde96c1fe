"""niwaki: structured pruning for PyTorch.

`prune` does it all; `trace`, `score`, `select`, `compensate`, `shrink` and `check` are its steps, one by one.
"""

from niwaki import data, models
from niwaki.checkpoint import load, load_weights, open_weights, read_weights, save, shrink_files
from niwaki.compensation import Compensation, Mixing, compensate
from niwaki.criteria import Criterion, refine, score
from niwaki.depth import Shallower, drop_branches
from niwaki.errors import NiwakiError
from niwaki.evidence import Calibration, Evidence
from niwaki.export import export_onnx, export_program, quantise_onnx
from niwaki.graph import Branch, Graph, Group, branches, trace
from niwaki.measure import count_bytes, count_macs, count_params, evaluate, layer_costs, measure_latency, peak_memory
from niwaki.plan import Plan
from niwaki.prune import Result, preview, prune
from niwaki.records import Measurement, Record
from niwaki.records.environment import __version__
from niwaki.selection import Budget, Preview, Selection, select
from niwaki.surgery import check, shrink
from niwaki.trim import Trimmed, trim

__all__ = [
    "Branch",
    "Budget",
    "Calibration",
    "Compensation",
    "Criterion",
    "Evidence",
    "Graph",
    "Group",
    "Measurement",
    "Mixing",
    "NiwakiError",
    "Plan",
    "Preview",
    "Record",
    "Result",
    "Selection",
    "Shallower",
    "Trimmed",
    "__version__",
    "branches",
    "check",
    "compensate",
    "count_bytes",
    "count_macs",
    "count_params",
    "data",
    "drop_branches",
    "evaluate",
    "export_onnx",
    "export_program",
    "layer_costs",
    "load",
    "load_weights",
    "measure_latency",
    "models",
    "open_weights",
    "peak_memory",
    "preview",
    "prune",
    "quantise_onnx",
    "read_weights",
    "refine",
    "save",
    "score",
    "select",
    "shrink",
    "shrink_files",
    "trace",
    "trim",
]
