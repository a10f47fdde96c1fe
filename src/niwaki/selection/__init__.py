"""Selection: scores and a budget → a plan."""

from niwaki.selection.budget import Budget
from niwaki.selection.select import Selection, select

__all__ = ["Budget", "Selection", "select"]
