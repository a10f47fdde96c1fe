"""Gradual pruning in a Lightning `Trainer`.

trainer = Trainer(…, callbacks=[GradualPruning(inputs, "macs=0.5", module="net")])
trainer.fit(lightning_module)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from niwaki.core.errors import MissingExtraError, SettingError
from niwaki.integrations.asked import Asked, refuse_processes

if TYPE_CHECKING:
    Callback: Any = object
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError as error:
            raise MissingExtraError("lightning", "lightning") from error


class GradualPruning(Asked, Callback):  # type: ignore[misc]  # the library has no types
    """Prunes a network inside of the LightningModule in place, at steps of the whole run;
    `niwaki.schedule` says how.

    `.result` is the pruned network with its record, after `trainer.fit()`.

    Args:
        module: the attribute of the LightningModule that holds the network; not needed where it is
            the only part with parameters.

    Raises:
        SettingError: when training begins: the schedule is longer than the run, the callback is
            there twice, several processes share the model, there is more than one optimiser, the
            run was resumed after a cut, or it is not clear what to prune.
    """

    def __init__(self, *args: Any, module: str | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._module = module

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin, also where a run is resumed before its first cut."""
        refuse_processes(trainer.world_size)
        if len(trainer.optimizers) != 1:
            raise SettingError(
                f"gradual pruning hands one optimiser over, and this run has "
                f"{len(trainer.optimizers)}; use niwaki.schedule in the module's training_step"
            )
        steps = trainer.estimated_stepping_batches
        if not isinstance(steps, int):
            raise SettingError("the length of the run is not known; give the Trainer max_steps=")
        network = _network(pl_module, self._module)
        self._start(network, steps, trainer.global_step, trainer.optimizers[0])

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Called after every batch; counts steps of the optimiser."""
        self._advance(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Warns where cuts are left."""
        self._end()


def _network(module: nn.Module, name: str | None) -> nn.Module:
    parts = {
        part: child
        for part, child in module.named_children()
        if next(child.parameters(), None) is not None
    }
    if name is not None:
        try:
            return module.get_submodule(name)
        except AttributeError:
            raise SettingError(
                f"module={name!r} is no part of {type(module).__name__}; it has: {', '.join(parts)}"
            ) from None
    own = next(module.parameters(recurse=False), None)
    if len(parts) != 1 or own is not None:
        raise SettingError(
            f"{type(module).__name__} has several parts with parameters ({', '.join(parts)}); put "
            "the network into one nn.Module and give its name as module="
        )
    return next(iter(parts.values()))
