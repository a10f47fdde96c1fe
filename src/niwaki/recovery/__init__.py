"""Recovery: what can be done for a pruned network after the cut, without training. One method a file."""

from niwaki.recovery.base import RECOVERIES, Recovery, recover
from niwaki.recovery.batchnorm import BatchNorm
from niwaki.recovery.lbfgs import Lbfgs
from niwaki.recovery.refit import Refit

__all__ = ["RECOVERIES", "BatchNorm", "Lbfgs", "Recovery", "Refit", "recover"]
