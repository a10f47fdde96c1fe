"""Data sets by name: `load("cifar10:normalize=half", root)` gives train, validation and test
splits.

Images are held as one uint8 tensor and normalised a batch at a time. A split is read when it is
asked for. Nothing is ever chosen on the test split: validation is carved from train.
"""

from niwaki.data.dataset import Dataset
from niwaki.data.sources import available, load
from niwaki.data.split import HeldSplit, Normalization, Split, StreamedSplit

__all__ = ["Dataset", "HeldSplit", "Normalization", "Split", "StreamedSplit", "available", "load"]
