"""Mean and covariance of rows that come in pieces, in memory that does not grow with their number."""

from __future__ import annotations

import torch
from torch import Tensor

from niwaki.errors import SettingError

ROWS = 8192  # a product of so many rows in float32 is exact to about 1e-6; the sums of such pieces are kept in float64


class Moments:
    """Of rows of one width: how many, their mean, and their covariance, in float64 on the CPU."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._centre: Tensor | None = None  # near the mean, so that little is lost when its square is taken off
        self._sum = torch.zeros(width, dtype=torch.float64, device="cpu")
        self._products = torch.zeros(width, width, dtype=torch.float64, device="cpu")

    @classmethod
    def stated(cls, mean: Tensor, covariance: Tensor) -> Moments:
        """Moments that were not counted but are known."""
        made = cls(len(mean))
        made.count, made._sum, made._products, made._centre = 1, mean * 0, covariance, mean
        return made

    def add(self, rows: Tensor, where: str) -> None:
        """Take up some rows: (n, width).

        Raises:
            SettingError: they hold NaN or infinite values.
        """
        if self._centre is None:
            self._centre = rows.double().mean(0).nan_to_num().cpu()
        centre = self._centre.to(rows.device, rows.dtype if rows.dtype == torch.float64 else torch.float32)
        for piece in torch.split(rows, ROWS):
            piece = piece.to(centre.dtype) - centre
            self._sum += piece.sum(0).cpu().double()
            self._products += (piece.T @ piece).cpu().double()
        self.count += len(rows)
        if not bool(torch.isfinite(self._sum).all()):
            raise SettingError(f"with the calibration inputs {where} holds NaN or infinite values; look for them in the inputs")

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
