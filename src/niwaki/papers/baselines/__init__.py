"""What the three papers compare themselves with: older methods, run here at the same work."""

from niwaki.papers.baselines.recipe import Baselines
from niwaki.papers.baselines.run import BaselineRun, committed

__all__ = ["BaselineRun", "Baselines", "committed"]
