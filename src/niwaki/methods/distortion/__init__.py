"""What each group's loss of units does to the network's answer: one curve a group, so that a budget
can be divided where it hurts least.
"""

from niwaki.methods.distortion._quick import quick
from niwaki.methods.distortion.curves import apart, with_curves
from niwaki.methods.distortion.shape import of_scores

__all__ = ["apart", "of_scores", "quick", "with_curves"]
