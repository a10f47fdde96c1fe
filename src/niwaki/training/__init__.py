"""Training of small networks, before pruning and after it. It takes a penalty as a callable, and knows no sparsity."""

from niwaki.training.fit import fit
from niwaki.training.history import Epoch, History
from niwaki.training.settings import TrainSettings, learning_rate

__all__ = ["Epoch", "History", "TrainSettings", "fit", "learning_rate"]
