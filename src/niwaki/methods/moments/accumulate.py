"""Mean and covariance of rows that come in pieces, in memory that does not grow with their
number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.core.errors import SettingError

# a product of so many rows in float32 is exact to about 1e-6; the sums of such pieces are kept in
# float64
ROWS = 8192


class Moments:
    """Of rows of one width: how many, their mean, and their covariance, in float64 on the CPU."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.inputs = 0
        self._centre: Tensor | None = (
            None  # near the mean, so that little is lost when its square is taken off
        )
        self._sum = torch.zeros(width, dtype=torch.float64, device="cpu")
        self._products = torch.zeros(width, width, dtype=torch.float64, device="cpu")
        self._squared_means = torch.zeros(
            width, dtype=torch.float64, device="cpu"
        )  # of every input's mean

    @classmethod
    def stated(cls, mean: Tensor, covariance: Tensor) -> Moments:
        """Moments that were not counted but are known."""
        moments = cls(len(mean))
        moments.count, moments._sum = 1, mean * 0
        moments._products, moments._centre = covariance, mean
        return moments

    def add(self, rows: Tensor, where: str, inputs: int | None = None) -> None:
        """Take up some rows: (n, width).

        Args:
            inputs: of so many inputs, as many rows each, one input after the other; without it
                every row is one.

        Raises:
            SettingError: they hold NaN or infinite values.
        """
        if self._centre is None:
            self._centre = rows.double().mean(0).nan_to_num().cpu()
        centre = self._centre.to(
            rows.device, rows.dtype if rows.dtype == torch.float64 else torch.float32
        )
        for piece in torch.split(rows, ROWS):
            piece = piece.to(centre.dtype) - centre
            self._sum += piece.sum(0).cpu().double()
            self._products += (piece.T @ piece).cpu().double()
        inputs = inputs if inputs and len(rows) % inputs == 0 else len(rows)
        by_input = rows.view(inputs, -1, rows.shape[-1]).mean(1, dtype=centre.dtype) - centre
        self._squared_means += by_input.square().sum(0).cpu().double()
        self.count += len(rows)
        self.inputs += inputs
        if not bool(torch.isfinite(self._sum).all()):
            raise SettingError(
                f"with the calibration inputs {where} holds NaN or infinite values; look for them "
                "in the inputs"
            )

    @property
    def mean(self) -> Tensor:
        """(width,)."""
        assert self._centre is not None
        return self._centre + self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """(width, width)."""
        off = self._sum / self.count
        return self._products / self.count - torch.outer(off, off)

    @property
    def effective(self) -> float:
        """For how many rows drawn alone these count: neighbours in one input tell nearly the same.

        The mean of an input would vary by 1/m of what a row does if its m rows told different
        things; where it varies more, the input counts for as many rows as its mean is quieter than
        a row (the design effect of cluster samples, Kish 1965).
        """
        off = self._sum / self.count
        row = self._products.diagonal() / self.count - off.square()
        mean = self._squared_means / self.inputs - off.square()
        quieter = float(row.sum() / mean.sum()) if mean.sum() > 0 else float(self.count)
        return min(max(self.inputs * quieter, self.inputs), self.count)
