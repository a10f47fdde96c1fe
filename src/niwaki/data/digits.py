"""scikit-learn's hand-written digits: 1,797 grey images of 8 × 8, installed with the library."""

from __future__ import annotations

import numpy as np
import torch

from niwaki.core.errors import MissingExtraError
from niwaki.data.arrays import Arrays

BRIGHTEST = 16  # the library counts brightness from 0 to 16


def read() -> Arrays:
    """All images, their brightness stretched to 0 … 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data") from error
    digits = load_digits()
    images = np.rint(digits.images * (255 / BRIGHTEST)).astype(np.uint8)
    return Arrays(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(digits.target).long())
