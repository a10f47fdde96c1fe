"""Parameters that no recorded operator reads: stages that the forward does not call, heads for
training, paths that the example inputs do not take.
"""

from __future__ import annotations

from torch import nn

from niwaki.core.records import Unread
from niwaki.running import Tape


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
