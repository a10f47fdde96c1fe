"""Means and second moments of units where they are read, counted from inputs."""

from niwaki.methods.moments._gather import gather
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.moments.fisher import output_fisher
from niwaki.methods.moments.units import Reader, consumer_gram, readers

__all__ = ["Moments", "Reader", "consumer_gram", "gather", "output_fisher", "readers"]
