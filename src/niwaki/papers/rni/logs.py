"""What the notebook's two functions give beside the network: a dict, as the published ones do."""

from __future__ import annotations

from typing import Any

from niwaki.training import History


class Logs(dict[str, Any]):
    """The curves of a training by name, one number an epoch, and which epoch was kept.

    `test_acc`, `val_acc`, `train_acc` (shares in [0, 1]), `loss`, `penalty`, `lr`; `best_epoch` is
    the kept epoch's place in these lists, from 0. Unlike the published code's it is the best on
    validation images and not on test images: `logs["test_acc"][logs["best_epoch"]]` is an honest
    number.

    Attributes:
        history: the training's own record.
    """

    def __init__(self, history: History) -> None:
        epochs = history.epochs
        checked = [epoch.validation for epoch in epochs]
        super().__init__(
            test_acc=[epoch.observed["test"].accuracy for epoch in epochs],
            val_acc=[evaluation.accuracy for evaluation in checked if evaluation is not None],
            train_acc=[epoch.accuracy for epoch in epochs],
            loss=[epoch.loss for epoch in epochs],
            penalty=[epoch.penalty for epoch in epochs],
            lr=[epoch.lr for epoch in epochs],
            best_epoch=history.best_epoch - 1,
        )
        self.history = history
