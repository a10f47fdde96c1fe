"""How much the network's answer turns on what each layer puts out: the Fisher information of the
outputs, no labels needed.

A class is drawn from the network's own answer, and g is the gradient of its logarithm at a layer's
outputs; D = E[g·gᵀ] says which directions of the output matter, and Wᵀ·D·W which of the input do.
Where the network does not put out class scores (samples × classes), the gradient is that of a
random direction of its output.

Source: the Kronecker factor of output gradients in Martens and Grosse, K-FAC, ICML 2015, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from niwaki.methods.base.evidence import Evidence
from niwaki.running import (
    batch_size,
    call,
    preserved_mode,
    preserved_rng,
    preserved_state,
    tensors_in,
)

INPUTS = 8192  # of them at most; the estimate is good with far fewer


def output_fisher(evidence: Evidence, layers: Iterable[str], who: str) -> dict[str, Tensor]:
    """Layer → D (out, out), of linear layers and convolutions that can be told so; scaled to a mean
    diagonal of one.
    """
    model = evidence.graph.model
    modules = {name: model.get_submodule(name) for name in layers}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = {name: module for name, module in modules.items() if isinstance(module, kinds)}
    products: dict[str, Tensor] = {}
    frozen = [
        parameter
        for parameter in model.parameters()
        if parameter.is_floating_point() and not parameter.requires_grad
    ]
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    with ExitStack() as stack:
        for context in (
            torch.enable_grad(),
            preserved_state(model),
            preserved_mode(model, training=False),
            preserved_rng(),
        ):
            stack.enter_context(context)
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(_watch(name, module, products)).remove)
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            _walk(evidence, who)
        except RuntimeError as error:
            products.clear()
            reason = str(error).splitlines()[0]
            evidence.say(
                f"{who}: all outputs of a layer count alike, as the network cannot be "
                f"differentiated: {reason}"
            )
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for parameter, grad in grads:
                parameter.grad = grad
    return {
        name: matrix / level
        for name, matrix in products.items()
        if (level := float(matrix.diagonal().mean())) > 0
    }


def _walk(evidence: Evidence, who: str) -> None:
    done = 0
    for inputs, _ in evidence.batches(who):
        own = tree_map(
            lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs
        )
        output = next(iter(tensors_in(call(evidence.graph.model, own))), None)
        if output is None or not output.requires_grad:
            return
        flat = output.flatten(1) if output.ndim > 1 else output[:, None]
        if output.ndim == 2:
            chances = F.softmax(flat.detach().float().cpu(), 1)
            drawn = torch.multinomial(chances, 1, generator=evidence.generator).to(flat.device)
            goal = F.log_softmax(flat, 1).gather(1, drawn).sum()
        else:
            goal = (
                flat * torch.randn(flat.shape, generator=evidence.generator, device="cpu").to(flat)
            ).sum()
        goal.backward()
        done += batch_size(inputs)
        if done >= INPUTS:
            return


def _watch(name: str, module: nn.Module, products: dict[str, Tensor]) -> Any:
    def add(gradient: Tensor) -> None:
        rows = gradient.movedim(1, -1) if not isinstance(module, nn.Linear) else gradient
        table = rows.detach().reshape(-1, rows.shape[-1]).float()
        product = (table.T @ table).cpu().double()
        products[name] = products[name] + product if name in products else product

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(add)

    return hook
