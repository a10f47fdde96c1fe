"""Gradual pruning in a `transformers.Trainer`.

trainer = Trainer(…, callbacks=[GradualPruning(inputs, "params=0.5")])
trainer.train()
"""

from __future__ import annotations

from typing import Any

from niwaki.core.errors import MissingExtraError, SettingError
from niwaki.integrations.asked import Asked, refuse_processes

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError("transformers", "transformers") from error


class GradualPruning(Asked, TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Prunes the trainer's model in place, at steps of the whole run; `niwaki.schedule` says how.

    `.result` is the pruned network with its record, after `trainer.train()`.

    Example:
        >>> import torch  # the inputs are what a tokenizer makes of a text, as a dict
        >>> pruning = GradualPruning({"input_ids": torch.tensor([[5, 3, 8]])}, "params=0.5")

    Raises:
        SettingError: when training begins: the schedule is longer than the run, the callback is
            there twice, several processes share the model, or the best of several checkpoints is
            to be loaded at the end, which may have another size.
    """

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Begin, also where a run is resumed before its first cut."""
        refuse_processes(args.world_size)
        if args.load_best_model_at_end:
            raise SettingError(
                "load_best_model_at_end=True may bring back weights of an older, larger size; "
                "turn it off, and choose among checkpoints after the last cut"
            )
        self._start(model, state.max_steps, state.global_step, optimizer)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after every step of the optimiser."""
        self._advance(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Warns where cuts are left."""
        self._end()
