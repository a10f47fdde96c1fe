"""What a criterion, a compensation, a recovery and a penalty are, and the evidence that they may
look at.
"""

from niwaki.methods.base.compensation import (
    COMPENSATIONS,
    Compensation,
    Groupwise,
    compensate,
)
from niwaki.methods.base.criterion import (
    CRITERIA,
    Criterion,
    FunctionCriterion,
    ScoreFunction,
    as_criterion,
    refine,
    score,
    scored,
)
from niwaki.methods.base.cut import Cut, Scores
from niwaki.methods.base.evidence import Calibration, Evidence, Gives
from niwaki.methods.base.objective import Objective, Watching
from niwaki.methods.base.penalty import PENALTIES, Penalty, PenaltyOver
from niwaki.methods.base.recovery import RECOVERIES, Recovery, recover

__all__ = [
    "COMPENSATIONS",
    "CRITERIA",
    "PENALTIES",
    "RECOVERIES",
    "Calibration",
    "Compensation",
    "Criterion",
    "Cut",
    "Evidence",
    "FunctionCriterion",
    "Gives",
    "Groupwise",
    "Objective",
    "Penalty",
    "PenaltyOver",
    "Recovery",
    "ScoreFunction",
    "Scores",
    "Watching",
    "as_criterion",
    "compensate",
    "recover",
    "refine",
    "score",
    "scored",
]
