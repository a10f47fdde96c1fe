"""The proof: what a pruned model must compute, whether it does, and which groups are to blame where
it does not.
"""

from niwaki.proof._check import Proof, check
from niwaki.proof.blame import Blame
from niwaki.proof.counted import Counted, counted_numbers
from niwaki.proof.reference import reference_outputs
from niwaki.proof.structure import check_structure

__all__ = [
    "Blame",
    "Counted",
    "Proof",
    "check",
    "check_structure",
    "counted_numbers",
    "reference_outputs",
]
