"""What each group's loss of units does to the network's answer: one curve a group, so that a budget
can be divided where it hurts least.
"""

from niwaki.methods.distortion.curves import with_curves
from niwaki.methods.distortion.shape import of_scores

__all__ = ["of_scores", "with_curves"]
