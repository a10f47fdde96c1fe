"""RNI: receding neuron importances, learned on bounded BatchNorm scales (Suteu and Guo, 2022)."""

from niwaki.methods.rni.batch_norm import SigmoidBatchNorm1d, SigmoidBatchNorm2d, SigmoidBatchNorm3d
from niwaki.methods.rni.convert import fold_sigmoid_batchnorm, with_sigmoid_batchnorm
from niwaki.methods.rni.parameters import parameter_groups
from niwaki.methods.rni.penalty import RNI

__all__ = [
    "RNI",
    "SigmoidBatchNorm1d",
    "SigmoidBatchNorm2d",
    "SigmoidBatchNorm3d",
    "fold_sigmoid_batchnorm",
    "parameter_groups",
    "with_sigmoid_batchnorm",
]
