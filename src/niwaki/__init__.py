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
        testing,
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
        push_to_hub,
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
    from niwaki.methods.auto import Auto, AutoCriterion
    from niwaki.methods.base import (
        Calibration,
        Compensation,
        Criterion,
        Cut,
        Evidence,
        Groupwise,
        Penalty,
        Recovery,
        Scores,
        compensate,
        recover,
        refine,
        score,
    )
    from niwaki.methods.batchnorm_scale import BnScale
    from niwaki.methods.batchnorm_statistics import BatchNorm
    from niwaki.methods.data_free import DerivedMoments
    from niwaki.methods.factors import fold_factors, with_factors
    from niwaki.methods.flap import BiasCompensation, Flap
    from niwaki.methods.folding import Fold, FoldClusters
    from niwaki.methods.gal import GAL
    from niwaki.methods.geometric_median import GeometricMedian
    from niwaki.methods.greg import GReg
    from niwaki.methods.group_lasso import GroupLasso
    from niwaki.methods.input_selection import select_inputs
    from niwaki.methods.isomorphic import Isomorphic
    from niwaki.methods.lamp import Lamp
    from niwaki.methods.matching import Match
    from niwaki.methods.mint import (
        Estimation,
        Mint,
        conditional_mutual_information,
        layer_dependencies,
    )
    from niwaki.methods.neuron_merging import Merge
    from niwaki.methods.nisp import Nisp
    from niwaki.methods.none import NoCompensation
    from niwaki.methods.norms import L1, L2
    from niwaki.methods.oed import OED
    from niwaki.methods.optimal_brain_damage import Fisher, Hessian
    from niwaki.methods.pruning_filters import PruningFilters, shares_by_sensitivity
    from niwaki.methods.random import Random
    from niwaki.methods.reconstruction import Lbfgs, Reconstruct, Reconstruction, Refit
    from niwaki.methods.rni import RNI, fold_sigmoid_batchnorm, with_sigmoid_batchnorm
    from niwaki.methods.slimming import Slimming
    from niwaki.methods.ssl import SSL
    from niwaki.methods.structure_selection import StructureSelection
    from niwaki.methods.taylor import Taylor, TaylorActivation
    from niwaki.methods.thinet import ChannelScale, ThiNet
    from niwaki.methods.wanda import Wanda
    from niwaki.proof import Proof, check
    from niwaki.pruning import (
        Gradual,
        Operator,
        Preview,
        Result,
        Schedule,
        Selection,
        Sensitivity,
        drop_branches,
        operator,
        preview,
        prune,
        schedule,
        select,
        sensitivity,
        trim,
    )
    from niwaki.surgery import shrink

__all__ = [
    "GAL",
    "L1",
    "L2",
    "OED",
    "RNI",
    "SSL",
    "Auto",
    "AutoCriterion",
    "BatchNorm",
    "BiasCompensation",
    "BnScale",
    "Branch",
    "Budget",
    "Calibration",
    "ChannelScale",
    "Compensation",
    "Criterion",
    "Cut",
    "DerivedMoments",
    "Estimation",
    "Evidence",
    "Fisher",
    "Flap",
    "Fold",
    "FoldClusters",
    "GReg",
    "GeometricMedian",
    "Gradual",
    "Graph",
    "Group",
    "GroupLasso",
    "Groupwise",
    "Hessian",
    "Isomorphic",
    "Kept",
    "Lamp",
    "Lbfgs",
    "Match",
    "Measurement",
    "Merge",
    "Mint",
    "Mixing",
    "Nisp",
    "NiwakiError",
    "NoCompensation",
    "Operator",
    "Penalty",
    "Plan",
    "Preview",
    "Proof",
    "PruningFilters",
    "Random",
    "Reconstruct",
    "Reconstruction",
    "Record",
    "Recovery",
    "Refit",
    "Result",
    "Schedule",
    "Scores",
    "Selection",
    "Sensitivity",
    "Slimming",
    "StructureSelection",
    "Task",
    "Taylor",
    "TaylorActivation",
    "ThiNet",
    "Wanda",
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
    "fold_factors",
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
    "operator",
    "peak_memory",
    "preview",
    "proof",
    "prune",
    "pruning",
    "push_to_hub",
    "quantise_onnx",
    "read_weights",
    "recover",
    "refine",
    "report",
    "running",
    "save",
    "schedule",
    "score",
    "select",
    "select_inputs",
    "sensitivity",
    "shares_by_sensitivity",
    "shrink",
    "shrink_files",
    "surgery",
    "testing",
    "trace",
    "training",
    "trim",
    "with_factors",
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
        "export_onnx export_program load load_weights open_weights push_to_hub quantise_onnx "
        "read_weights save shrink_files"
    ),
    "niwaki.measure": (
        "Task agreement count_bytes count_macs count_params evaluate layer_costs "
        "measure_latency peak_memory"
    ),
    "niwaki.methods.auto": "Auto AutoCriterion",
    "niwaki.methods.base": (
        "Calibration Compensation Criterion Cut Evidence Groupwise Penalty Recovery "
        "Scores compensate recover refine score"
    ),
    "niwaki.methods.batchnorm_scale": "BnScale",
    "niwaki.methods.batchnorm_statistics": "BatchNorm",
    "niwaki.methods.data_free": "DerivedMoments",
    "niwaki.methods.factors": "fold_factors with_factors",
    "niwaki.methods.flap": "BiasCompensation Flap",
    "niwaki.methods.folding": "Fold FoldClusters",
    "niwaki.methods.gal": "GAL",
    "niwaki.methods.geometric_median": "GeometricMedian",
    "niwaki.methods.greg": "GReg",
    "niwaki.methods.group_lasso": "GroupLasso",
    "niwaki.methods.input_selection": "select_inputs",
    "niwaki.methods.isomorphic": "Isomorphic",
    "niwaki.methods.lamp": "Lamp",
    "niwaki.methods.matching": "Match",
    "niwaki.methods.mint": ("Estimation Mint conditional_mutual_information layer_dependencies"),
    "niwaki.methods.neuron_merging": "Merge",
    "niwaki.methods.nisp": "Nisp",
    "niwaki.methods.none": "NoCompensation",
    "niwaki.methods.norms": "L1 L2",
    "niwaki.methods.oed": "OED",
    "niwaki.methods.optimal_brain_damage": "Fisher Hessian",
    "niwaki.methods.pruning_filters": "PruningFilters shares_by_sensitivity",
    "niwaki.methods.random": "Random",
    "niwaki.methods.reconstruction": "Lbfgs Reconstruct Reconstruction Refit",
    "niwaki.methods.rni": "RNI fold_sigmoid_batchnorm with_sigmoid_batchnorm",
    "niwaki.methods.slimming": "Slimming",
    "niwaki.methods.ssl": "SSL",
    "niwaki.methods.structure_selection": "StructureSelection",
    "niwaki.methods.taylor": "Taylor TaylorActivation",
    "niwaki.methods.thinet": "ChannelScale ThiNet",
    "niwaki.methods.wanda": "Wanda",
    "niwaki.proof": "Proof check",
    "niwaki.pruning": (
        "Gradual Operator Preview Result Schedule Selection Sensitivity drop_branches operator "
        "preview prune schedule select sensitivity trim"
    ),
    "niwaki.surgery": "shrink",
}

if not _typing.TYPE_CHECKING:  # a checker would take every misspelt name for one that is found here
    __getattr__, __dir__ = _lazily(__name__, _HOMES, __all__)
