"""Compensation: what the kept units do for those that go. One method a file."""

from niwaki.compensation.auto import Auto
from niwaki.compensation.base import COMPENSATIONS, Compensated, Compensation, Groupwise, compensate
from niwaki.compensation.fold import Fold
from niwaki.compensation.match import Match
from niwaki.compensation.merge import Merge
from niwaki.compensation.mixing import Mixing
from niwaki.compensation.moments import DerivedMoments
from niwaki.compensation.none import NoCompensation
from niwaki.compensation.one_for_one import OneForOne
from niwaki.compensation.reconstruct import Reconstruct

__all__ = [
    "COMPENSATIONS",
    "Auto",
    "Compensated",
    "Compensation",
    "DerivedMoments",
    "Fold",
    "Groupwise",
    "Match",
    "Merge",
    "Mixing",
    "NoCompensation",
    "OneForOne",
    "Reconstruct",
    "compensate",
]
