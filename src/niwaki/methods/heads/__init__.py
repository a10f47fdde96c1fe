"""Inside heads: fewer dimensions of queries and keys, by a change of basis that leaves the function
as it is.
"""

from niwaki.methods.heads.basis import Basis, paired_basis
from niwaki.methods.heads.scale import Number, with_trained_scale
from niwaki.methods.heads.turn import turned

__all__ = ["Basis", "Number", "paired_basis", "turned", "with_trained_scale"]
