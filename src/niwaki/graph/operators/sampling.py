"""Operators that pick values by place, channel by channel: unpooling, sampling grids, folding."""

from __future__ import annotations

from functools import partial

from niwaki.graph.inference import Inference, Kind, Rule
from niwaki.graph.reasons import SPATIAL
from niwaki.graph.terms import product
from niwaki.running import Op


def unpool(state: Inference, op: Op, *, rank: int) -> Kind:
    """max_unpool(x, positions, size): every plane by its own positions, which lie in that plane."""
    axes, positions = state.terms(op.args[0]), state.terms(op.args[1])
    state.same(axes, positions)
    state.freeze(*axes[-rank:], reason=SPATIAL)
    space = state.fresh(state.shape(op.result)[-rank:], SPATIAL)
    state.give(op.result, [*axes[:-rank], *space])
    return Kind.OTHER


def grid_sample(state: Inference, op: Op) -> Kind:
    """grid_sampler(x (B, C, …), grid (B, …, rank)) → (B, C, …): all channels at the same places."""
    image, grid = state.terms(op.args[0]), state.terms(op.args[1])
    state.unify(image[0], grid[0])
    state.freeze(*image[2:], *grid[1:], reason=SPATIAL)
    state.give(op.result, [*image[:2], *state.fresh(state.shape(op.result)[2:], SPATIAL)])
    return Kind.OTHER


def affine_grid(state: Inference, op: Op) -> Kind:
    """affine_grid_generator(theta (B, rank, rank + 1), size) → (B, …, rank)."""
    theta = state.terms(op.args[0])
    state.freeze(*theta[1:], reason=SPATIAL)
    state.give(op.result, [theta[0], *state.fresh(state.shape(op.result)[1:], SPATIAL)])
    return Kind.OTHER


def fold_columns(state: Inference, op: Op) -> Kind:
    """col2im: (…, C ⊗ kernel, positions) → (…, C, h, w), where overlapping windows are summed."""
    axes = state.terms(op.args[0])
    rows, channels = axes[-2].size, state.shape(op.result)[-3]
    kept, kernel = state.split(axes[-2], [channels, rows // channels])
    state.freeze(kernel, axes[-1], reason=SPATIAL)
    space = state.fresh(state.shape(op.result)[-2:], SPATIAL)
    state.give(op.result, [*axes[:-2], kept, *space])
    return Kind.LINEAR


def rotate(state: Inference, op: Op) -> Kind:
    """rot90(x, times, dims): two axes are turned into one another."""
    axes = list(state.terms(op.args[0]))
    dims, reason = op.arg(2, "dims", [0, 1]), state.why("turned by")
    for dim in dims:
        state.freeze(axes[dim], reason=reason)
    for dim in dims:
        (axes[dim],) = state.fresh((state.shape(op.result)[dim],), reason)
    state.give(op.result, axes)
    return Kind.VIEW


def shuffle_channels(state: Inference, op: Op) -> Kind:
    """channel_shuffle(x, groups): groups ⊗ inner → inner ⊗ groups; the code keeps its groups."""
    axes, groups = list(state.terms(op.args[0])), op.args[1]
    group, inner = state.split(axes[1], [groups, axes[1].size // groups])
    state.freeze(group, reason=state.why("counted by"))
    axes[1] = product(inner, group)
    state.give(op.result, axes)
    return Kind.VIEW


RULES: dict[str, Rule] = {
    "max_unpool2d": partial(unpool, rank=2),
    "max_unpool3d": partial(unpool, rank=3),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d"), grid_sample),
    "affine_grid_generator": affine_grid,
    "col2im": fold_columns,
    "rot90": rotate,
    "channel_shuffle": shuffle_channels,
}
