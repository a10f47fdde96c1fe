"""Read a model: run it once, infer what its axes are made of, and collect the groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from niwaki.core.errors import TraceError
from niwaki.graph.channel_graph import Graph
from niwaki.graph.group import Frozen
from niwaki.graph.groups import build_groups
from niwaki.graph.inference import Inference, infer
from niwaki.graph.operators import AXES
from niwaki.graph.paths import Probes, find_probes, freeze_elsewhere
from niwaki.graph.reasons import Freeze, Reason
from niwaki.running import Inputs, as_arguments, named_state, record, tensors_in
from niwaki.running.computed import computed_weights, with_plain_weights
from niwaki.running.probes import Variant, variants

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


def trace(model: nn.Module, inputs: Inputs, *, probes: bool | Sequence[Inputs] = True) -> Graph:
    """Find the groups of channels that can be pruned.

    Args:
        model: any module; it is run in evaluation mode and left as it was found.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the model's
            device. The model's own inputs and outputs keep their sizes.
        probes: whether the model is run on other inputs too: another batch size and other values,
            longer and shorter ones, in training; or inputs that it takes, to be run beside these.

    Raises:
        TraceError: the model holds NaN or infinite weights or lazy ones, is scripted, quantised,
            sparse, wrapped for several devices or sharded over them, the inputs are on another
            device or of another precision, the forward raises (the message names the module and its
            input shapes), or no tensor can be seen in what it returns.
    """
    _refuse_unreadable(model)
    _refuse_misplaced(model, inputs)
    given, computed = model, computed_weights(model)
    if computed:
        model = with_plain_weights(model, computed)
    inference = infer(record(model, inputs, sources=True), AXES)
    learned = dict(model.named_parameters(remove_duplicate=False))
    inference.scales = {
        name: bounded for name, bounded in inference.scales.items() if name in learned
    }  # no buffers
    seen = _probed(model, inputs, inference, probes)
    groups, variables, frozen = build_groups(inference, seen.paths)
    for group in (
        groups
    ):  # the places of a cache or of a queue: no run says that the code never needs all of them
        if not any(piece.tensor in learned for piece in group.slices):
            groups = tuple(other for other in groups if other is not group)
            del variables[group.name]
            frozen = (
                *frozen,
                Frozen(group.name, group.width, Reason(Freeze.BUFFERS)),
            )
    return Graph(model, inputs, inference, groups, variables, frozen, seen, given, computed)


def _probed(
    model: nn.Module, inputs: Inputs, inference: Inference, probes: bool | Sequence[Inputs]
) -> Probes:
    """The variants of the example that the model takes; of a model without values, or one too large
    to be run for real, none.
    """
    if probes is False or inference.tape.fake:
        return Probes(remarks=("proved on the example's path alone: no other inputs were tried",))
    own = [] if probes is True else list(probes)
    named = [Variant(f"inputs given as probe {n}", f"given {n}", x) for n, x in enumerate(own, 1)]
    given = chain(named, variants(inputs, inference.tape))
    seen = find_probes(model, inputs, inference, AXES, given)
    freeze_elsewhere(inference, seen.paths)
    return seen


def _refuse_unreadable(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "the model is scripted (torch.jit); trace the module that it was made from"
        )
    if hasattr(model, "_orig_mod"):
        raise TraceError(
            "the model is compiled; pass the original (model._orig_mod) and compile the pruned one"
        )
    for name, module in model.named_modules():
        _refuse_module(name, module)
    learned = dict(model.named_parameters())
    for name, tensor in named_state(model).items():
        if is_lazy(tensor):
            raise TraceError(f"{name} has no shape yet; run the model once on an example input")
        if type(tensor).__name__ == "DTensor" or type(tensor.data).__name__ == "DTensor":
            raise TraceError(
                f"{name} is a DTensor, of which this process holds a part; gather the whole "
                "weights (full_tensor()) in an unsharded model, prune that, and shard the pruned "
                "one"
            )
        if tensor.is_quantized or tensor.layout != torch.strided:
            kind = "quantised" if tensor.is_quantized else "sparse"
            raise TraceError(
                f"{name} is {kind}; prune the dense float model and convert the pruned one"
            )
        if tensor.device.type == "meta" or not tensor.is_floating_point():
            continue
        if bool(torch.isfinite(tensor.detach().sum())):
            continue  # a sum of what holds NaN or infinite values is no finite number
        # an attention mask is a buffer with -inf in it
        if bool(torch.isnan(tensor).any()) or (name in learned and bool(torch.isinf(tensor).any())):
            raise TraceError(
                f"{name} holds NaN or infinite values; scores of such weights mean nothing"
            )


def _refuse_module(name: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise TraceError(
            f"{name} is scripted (torch.jit); put the module that it was made from in its place"
        )
    wrapper = type(module).__name__
    if wrapper in _WRAPPERS and type(module).__module__.startswith("torch."):
        raise TraceError(
            f"{name or 'the model'} is wrapped in {wrapper}; prune the module inside "
            f"({name + '.' * bool(name)}module) with its whole weights, and wrap the pruned one"
        )


def _refuse_misplaced(model: nn.Module, inputs: Inputs) -> None:
    state = [tensor for tensor in named_state(model).values() if tensor.is_floating_point()]
    devices, dtypes = {tensor.device for tensor in state}, {tensor.dtype for tensor in state}
    args, kwargs = as_arguments(inputs)
    for tensor in tensors_in((args, kwargs)):
        if devices and tensor.device not in devices:
            device = next(iter(devices))
            raise TraceError(
                f"an example input is on {tensor.device} but the model on {device}; use "
                f"inputs.to({str(device)!r})"
            )
        if len(dtypes) == 1 and tensor.is_floating_point() and tensor.dtype not in dtypes:
            dtype = next(iter(dtypes))
            raise TraceError(
                f"an example input is {tensor.dtype} but the model {dtype}; use inputs.to({dtype})"
            )
