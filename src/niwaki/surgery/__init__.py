"""Surgery: graph + plan + mixings → the smaller module."""

from niwaki.surgery._adopt import adopt, cut_twin
from niwaki.surgery._rewrite import rewrite
from niwaki.surgery._shrink import cut_tensors, fill, masked_state, shrink
from niwaki.surgery.block_layers import (
    BlockConv2d,
    BlockLinear,
    BlockSparse,
    as_blocks,
    as_dense,
    blocks_after,
    can_be_blocks,
    stored_bytes,
    with_blocks,
    without_blocks,
)
from niwaki.surgery.branches import put_stand_ins, stand_ins
from niwaki.surgery.by_value import Sizes
from niwaki.surgery.config import follow_config
from niwaki.surgery.idle import idle_units
from niwaki.surgery.lineage import remember
from niwaki.surgery.nothing import Nothing
from niwaki.surgery.optimizer import hand_over
from niwaki.surgery.sizes import least_sizes, size_guesses

__all__ = [
    "BlockConv2d",
    "BlockLinear",
    "BlockSparse",
    "Nothing",
    "Sizes",
    "adopt",
    "as_blocks",
    "as_dense",
    "blocks_after",
    "can_be_blocks",
    "cut_tensors",
    "cut_twin",
    "fill",
    "follow_config",
    "hand_over",
    "idle_units",
    "least_sizes",
    "masked_state",
    "put_stand_ins",
    "remember",
    "rewrite",
    "shrink",
    "size_guesses",
    "stand_ins",
    "stored_bytes",
    "with_blocks",
    "without_blocks",
]
