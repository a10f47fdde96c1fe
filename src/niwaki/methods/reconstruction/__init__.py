"""Reconstruction: what the kept units can make up for, by least squares where the units are
read.
"""

from niwaki.methods.reconstruction.criterion import Reconstruction
from niwaki.methods.reconstruction.lbfgs import Lbfgs
from niwaki.methods.reconstruction.refit import Refit
from niwaki.methods.reconstruction.repair import Reconstruct

__all__ = ["Lbfgs", "Reconstruct", "Reconstruction", "Refit"]
