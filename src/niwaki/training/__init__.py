"""Training, before pruning and after it: one loop on accelerate. It takes a penalty as a callable,
and knows no sparsity.
"""

from niwaki.training._fit import fit
from niwaki.training.augment import Augment
from niwaki.training.distillation import Distillation
from niwaki.training.feed import Feed, FeedSettings
from niwaki.training.folder import BEST, HISTORY, LAST, RunFolder
from niwaki.training.history import Epoch, History
from niwaki.training.schedule import learning_rate
from niwaki.training.settings import TrainSettings

__all__ = [
    "BEST",
    "HISTORY",
    "LAST",
    "Augment",
    "Distillation",
    "Epoch",
    "Feed",
    "FeedSettings",
    "History",
    "RunFolder",
    "TrainSettings",
    "fit",
    "learning_rate",
]
