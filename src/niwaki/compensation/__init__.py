"""Compensation: what the kept units do for those that go. One method a file."""

from niwaki.compensation.auto import Auto
from niwaki.compensation.base import COMPENSATIONS, Compensated, Compensation, Groupwise, compensate
from niwaki.compensation.merge import Merge
from niwaki.compensation.mixing import Mixing
from niwaki.compensation.moments import DerivedMoments
from niwaki.compensation.none import NoCompensation
from niwaki.compensation.reconstruct import Reconstruct

__all__ = [
    "COMPENSATIONS",
    "Auto",
    "Compensated",
    "Compensation",
    "DerivedMoments",
    "Groupwise",
    "Merge",
    "Mixing",
    "NoCompensation",
    "Reconstruct",
    "compensate",
]
