"""Means and second moments of units where they are read: counted from inputs, or derived from the weights."""

from niwaki.moments.accumulate import Moments
from niwaki.moments.derive import derive
from niwaki.moments.fisher import output_fisher
from niwaki.moments.gather import gather
from niwaki.moments.units import Reader, consumer_gram, readers

__all__ = ["Moments", "Reader", "consumer_gram", "derive", "gather", "output_fisher", "readers"]
