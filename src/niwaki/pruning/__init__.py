"""From a trained network to a smaller one that is proved: what goes, how it is repaired, and the
search for a plan that holds.
"""

from niwaki.pruning._operator import Operator, operator
from niwaki.pruning._preview import preview
from niwaki.pruning._prune import prune
from niwaki.pruning._schedule import schedule
from niwaki.pruning._sensitivity import Sensitivity, sensitivity
from niwaki.pruning.allocation import select
from niwaki.pruning.depth import drop_branches
from niwaki.pruning.gradual import Gradual
from niwaki.pruning.result import Result
from niwaki.pruning.schedules import Schedule
from niwaki.pruning.selection import Selection
from niwaki.pruning.table import Preview
from niwaki.pruning.trimming import trim

__all__ = [
    "Gradual",
    "Operator",
    "Preview",
    "Result",
    "Schedule",
    "Selection",
    "Sensitivity",
    "drop_branches",
    "operator",
    "preview",
    "prune",
    "schedule",
    "select",
    "sensitivity",
    "trim",
]
