"""Selection: scores and a budget → a plan."""

from niwaki.selection.budget import Budget
from niwaki.selection.preview import Preview, preview
from niwaki.selection.select import Cost, Counts, Selection, predicted_cost, select

__all__ = ["Budget", "Cost", "Counts", "Preview", "Selection", "predicted_cost", "preview", "select"]
