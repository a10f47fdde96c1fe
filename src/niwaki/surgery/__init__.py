"""Surgery: graph + plan + mixings → the smaller module."""

from niwaki.surgery._rewrite import rewrite
from niwaki.surgery._shrink import cut_tensors, shrink
from niwaki.surgery.block_layers import (
    BlockConv2d,
    BlockLinear,
    BlockSparse,
    as_blocks,
    as_dense,
    can_be_blocks,
    stored_bytes,
    with_blocks,
    without_blocks,
)
from niwaki.surgery.config import follow_config
from niwaki.surgery.idle import idle_units
from niwaki.surgery.lineage import remember
from niwaki.surgery.nothing import Nothing
from niwaki.surgery.optimizer import hand_over
from niwaki.surgery.sizes import Sizes, least_sizes, size_guesses

__all__ = [
    "BlockConv2d",
    "BlockLinear",
    "BlockSparse",
    "Nothing",
    "Sizes",
    "as_blocks",
    "as_dense",
    "can_be_blocks",
    "cut_tensors",
    "follow_config",
    "hand_over",
    "idle_units",
    "least_sizes",
    "remember",
    "rewrite",
    "shrink",
    "size_guesses",
    "stored_bytes",
    "with_blocks",
    "without_blocks",
]
