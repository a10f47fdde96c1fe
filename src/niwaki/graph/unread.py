"""Parameters that no recorded operator reads: stages that the forward does not call, heads for
training, paths that the example inputs do not take.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from niwaki.running import Tape

SHOWN = 3


@dataclass(frozen=True)
class Unread:
    """What of a model's parameters the run did not touch; false where it touched all.

    Attributes:
        names: of the parameters, in the model's order.
        entries, total: their numbers, and those of the whole model.
    """

    names: tuple[str, ...]
    entries: int
    total: int

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        first = ", ".join(self.names[:SHOWN]) + ", …" * (len(self.names) > SHOWN)
        return (
            f"{self.entries} of {self.total} parameters ({self.share:.0%}) are never read on the "
            f"example inputs, and stay whole: {first}"
        )

    @property
    def share(self) -> float:
        """Of all parameters."""
        return self.entries / self.total if self.total else 0.0


def unread(model: nn.Module, tape: Tape) -> Unread:
    """The parameters that a run never touched.

    >>> import niwaki, torch
    >>> class First(nn.Sequential):
    ...     def forward(self, x):
    ...         return self[0](x)
    >>> model = First(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> unread(model, niwaki.trace(model, torch.ones(1, 2)).inference.tape)
    Unread(names=('1.weight', '1.bias'), entries=4, total=13)
    """
    touched = {
        name
        for op in tape.ops
        for ref in op.tensors
        if (name := tape.parameters.get(ref)) is not None
    } | {tape.parameters[ref] for ref in tape.outputs if ref in tape.parameters}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    names = tuple(name for name in sizes if name not in touched)
    return Unread(names, sum(sizes[name] for name in names), sum(sizes.values()))
