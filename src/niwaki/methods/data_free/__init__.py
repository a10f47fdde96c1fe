"""The same without any data: moments of the units derived from weights and stored statistics."""

from niwaki.methods.data_free._derive import derive
from niwaki.methods.data_free.repair import DerivedMoments

__all__ = ["DerivedMoments", "derive"]
