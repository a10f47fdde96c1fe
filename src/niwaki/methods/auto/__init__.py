"""What is chosen for those who do not want to choose: a criterion and a compensation, by what there
is.
"""

from niwaki.methods.auto.compensation import Auto
from niwaki.methods.auto.criterion import AutoCriterion

__all__ = ["Auto", "AutoCriterion"]
