"""The line on stderr that tells how a training run is getting on."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingBar:
    """epoch 3/10 ━━━━ loss 0.412  accuracy 86.3%  5,210 images/s  0:00:12 left 0:00:31

    On stderr, because stdout is for results.
    """

    def __init__(self, epochs: int, enabled: bool) -> None:
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._task = self._progress.add_task(f"epoch 1/{epochs}", total=None, numbers="")
        self._enabled = enabled

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, epoch: int, share: float, numbers: str) -> None:
        """`share` in [0, 1] of `epoch` (from 1) is done."""
        self._progress.update(
            self._task,
            description=f"epoch {epoch}/{self._epochs}",
            total=self._epochs,
            completed=epoch - 1 + share,
            numbers=numbers,
        )

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._enabled:
            self._progress.console.print(message, markup=False, highlight=False)
