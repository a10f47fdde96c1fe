"""Sparsity that is learned while training: bounded scales, and penalties that tell the units that are needed from the rest."""

from niwaki.sparsity.batch_norm import SigmoidBatchNorm1d, SigmoidBatchNorm2d, SigmoidBatchNorm3d
from niwaki.sparsity.convert import fold_sigmoid_batchnorm, with_sigmoid_batchnorm
from niwaki.sparsity.group_lasso import GroupLasso
from niwaki.sparsity.parameters import parameter_groups
from niwaki.sparsity.penalty import PENALTIES, Penalty, PenaltyOver
from niwaki.sparsity.rni import RNI
from niwaki.sparsity.slimming import L1

__all__ = [
    "L1",
    "PENALTIES",
    "RNI",
    "GroupLasso",
    "Penalty",
    "PenaltyOver",
    "SigmoidBatchNorm1d",
    "SigmoidBatchNorm2d",
    "SigmoidBatchNorm3d",
    "fold_sigmoid_batchnorm",
    "parameter_groups",
    "with_sigmoid_batchnorm",
]
