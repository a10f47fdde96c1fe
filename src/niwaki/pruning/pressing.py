"""Between cuts, the units that go next are pressed down by a weight decay that grows.

This is GReg's decay (`niwaki.GReg`, arXiv 2012.09243), taken off the weights beside the
optimiser's step, as AdamW does with its own (arXiv 1711.05101): no loss has to be changed, no
gradient is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from niwaki.core.plan import Plan
from niwaki.graph import Graph
from niwaki.methods.greg import GReg


class Pressing:
    """A growing decay on the units that a plan takes away.

    Attributes:
        scores: what the plan was chosen by, so that the cut takes these very units.
    """

    def __init__(self, graph: Graph, plan: Plan, scores: Mapping[str, Tensor], greg: GReg) -> None:
        self.scores = scores
        self._growing = greg.upon(graph, plan)

    def step(self, model: nn.Module, optimizer: Optimizer) -> None:
        """w ← w - lr·λ·w for the units that are to go; λ grows as `niwaki.GReg` says."""
        rates = {
            id(parameter): float(group["lr"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        with torch.enable_grad():
            value = self._growing(model)
        learned = [
            parameter
            for parameter in model.parameters()
            if id(parameter) in rates and parameter.requires_grad
        ]
        if not value.requires_grad or not learned:
            return
        slopes = torch.autograd.grad(value, learned, allow_unused=True)
        with torch.no_grad():
            for parameter, slope in zip(learned, slopes, strict=True):
                if slope is not None:
                    parameter.sub_(slope, alpha=rates[id(parameter)])
