"""niwaki: structured pruning for PyTorch.

`prune` does it all; `trace`, `score`, `select`, `compensate`, `shrink` and `check` are its steps.
Everything is imported when it is first used: `import niwaki` costs nothing by itself.
"""

import typing as _typing

from niwaki.core.lazy import lazily as _lazily

if _typing.TYPE_CHECKING:
    from niwaki import (
        core,
        data,
        graph,
        io,
        measure,
        methods,
        models,
        proof,
        pruning,
        report,
        running,
        surgery,
        training,
    )
    from niwaki.core.budget import Budget
    from niwaki.core.errors import NiwakiError
    from niwaki.core.mixing import Mixing
    from niwaki.core.plan import Kept, Plan
    from niwaki.core.records import Measurement, Record
    from niwaki.core.version import __version__
    from niwaki.graph import Branch, Graph, Group, branches, trace
    from niwaki.io import (
        export_onnx,
        export_program,
        load,
        load_weights,
        open_weights,
        quantise_onnx,
        read_weights,
        save,
        shrink_files,
    )
    from niwaki.measure import (
        Task,
        agreement,
        count_bytes,
        count_macs,
        count_params,
        evaluate,
        layer_costs,
        measure_latency,
        peak_memory,
    )
    from niwaki.methods.auto import Auto
    from niwaki.methods.base import (
        Calibration,
        Compensated,
        Compensation,
        Criterion,
        Evidence,
        Groupwise,
        Penalty,
        Recovery,
        compensate,
        recover,
        refine,
        score,
    )
    from niwaki.methods.batchnorm_scale import BnScale
    from niwaki.methods.batchnorm_statistics import BatchNorm
    from niwaki.methods.data_free import DerivedMoments
    from niwaki.methods.folding import Fold, FoldClusters
    from niwaki.methods.geometric_median import GeometricMedian
    from niwaki.methods.group_lasso import GroupLasso
    from niwaki.methods.matching import Match
    from niwaki.methods.mint import (
        Estimation,
        Mint,
        conditional_mutual_information,
        layer_dependencies,
    )
    from niwaki.methods.neuron_merging import Merge
    from niwaki.methods.none import NoCompensation
    from niwaki.methods.norms import L1, L2
    from niwaki.methods.random import Random
    from niwaki.methods.reconstruction import Lbfgs, Reconstruct, Reconstruction, Refit
    from niwaki.methods.rni import RNI, fold_sigmoid_batchnorm, with_sigmoid_batchnorm
    from niwaki.methods.slimming import Slimming
    from niwaki.proof import check
    from niwaki.pruning import (
        Preview,
        Result,
        Selection,
        Sensitivity,
        Shallower,
        Trimmed,
        drop_branches,
        preview,
        prune,
        select,
        sensitivity,
        trim,
    )
    from niwaki.surgery import shrink

__all__ = [
    "L1",
    "L2",
    "RNI",
    "Auto",
    "BatchNorm",
    "BnScale",
    "Branch",
    "Budget",
    "Calibration",
    "Compensated",
    "Compensation",
    "Criterion",
    "DerivedMoments",
    "Estimation",
    "Evidence",
    "Fold",
    "FoldClusters",
    "GeometricMedian",
    "Graph",
    "Group",
    "GroupLasso",
    "Groupwise",
    "Kept",
    "Lbfgs",
    "Match",
    "Measurement",
    "Merge",
    "Mint",
    "Mixing",
    "NiwakiError",
    "NoCompensation",
    "Penalty",
    "Plan",
    "Preview",
    "Random",
    "Reconstruct",
    "Reconstruction",
    "Record",
    "Recovery",
    "Refit",
    "Result",
    "Selection",
    "Sensitivity",
    "Shallower",
    "Slimming",
    "Task",
    "Trimmed",
    "__version__",
    "agreement",
    "branches",
    "check",
    "compensate",
    "conditional_mutual_information",
    "core",
    "count_bytes",
    "count_macs",
    "count_params",
    "data",
    "drop_branches",
    "evaluate",
    "export_onnx",
    "export_program",
    "fold_sigmoid_batchnorm",
    "graph",
    "io",
    "layer_costs",
    "layer_dependencies",
    "load",
    "load_weights",
    "measure",
    "measure_latency",
    "methods",
    "models",
    "open_weights",
    "peak_memory",
    "preview",
    "proof",
    "prune",
    "pruning",
    "quantise_onnx",
    "read_weights",
    "recover",
    "refine",
    "report",
    "running",
    "save",
    "score",
    "select",
    "sensitivity",
    "shrink",
    "shrink_files",
    "surgery",
    "trace",
    "training",
    "trim",
    "with_sigmoid_batchnorm",
]

_HOMES = {  # as above, for running; a test holds the two equal
    "niwaki.core.budget": "Budget",
    "niwaki.core.errors": "NiwakiError",
    "niwaki.core.mixing": "Mixing",
    "niwaki.core.plan": "Kept Plan",
    "niwaki.core.version": "__version__",
    "niwaki.core.records": "Measurement Record",
    "niwaki.graph": "Branch Graph Group branches trace",
    "niwaki.io": (
        "export_onnx export_program load load_weights open_weights quantise_onnx "
        "read_weights save shrink_files"
    ),
    "niwaki.measure": (
        "Task agreement count_bytes count_macs count_params evaluate layer_costs measure_latency "
        "peak_memory"
    ),
    "niwaki.methods.auto": "Auto",
    "niwaki.methods.base": (
        "Calibration Compensated Compensation Criterion Evidence Groupwise Penalty "
        "Recovery compensate recover refine score"
    ),
    "niwaki.methods.batchnorm_scale": "BnScale",
    "niwaki.methods.batchnorm_statistics": "BatchNorm",
    "niwaki.methods.data_free": "DerivedMoments",
    "niwaki.methods.folding": "Fold FoldClusters",
    "niwaki.methods.geometric_median": "GeometricMedian",
    "niwaki.methods.group_lasso": "GroupLasso",
    "niwaki.methods.matching": "Match",
    "niwaki.methods.mint": "Estimation Mint conditional_mutual_information layer_dependencies",
    "niwaki.methods.neuron_merging": "Merge",
    "niwaki.methods.none": "NoCompensation",
    "niwaki.methods.norms": "L1 L2",
    "niwaki.methods.random": "Random",
    "niwaki.methods.reconstruction": "Lbfgs Reconstruct Reconstruction Refit",
    "niwaki.methods.rni": "RNI fold_sigmoid_batchnorm with_sigmoid_batchnorm",
    "niwaki.methods.slimming": "Slimming",
    "niwaki.proof": "check",
    "niwaki.pruning": (
        "Preview Result Selection Sensitivity Shallower Trimmed drop_branches preview "
        "prune select sensitivity trim"
    ),
    "niwaki.surgery": "shrink",
}

if not _typing.TYPE_CHECKING:  # a checker would take every misspelt name for one that is found here
    __getattr__, __dir__ = _lazily(__name__, _HOMES, __all__)
