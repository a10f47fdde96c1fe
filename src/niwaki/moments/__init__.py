"""Means and second moments of units where they are read: counted from inputs, or derived from the weights."""

from niwaki.moments.accumulate import Moments
from niwaki.moments.derive import derive
from niwaki.moments.gather import gather
from niwaki.moments.units import Reader, readers

__all__ = ["Moments", "Reader", "derive", "gather", "readers"]
