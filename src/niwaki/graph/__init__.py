"""The channel graph: which indices of which tensors belong together. Only this package knows layers and operators."""

from niwaki.graph.branches import Branch, branches
from niwaki.graph.inputs import (
    Inputs,
    as_arguments,
    batch_size,
    batched,
    call,
    copied,
    described,
    made_up,
    preserved_mode,
    preserved_rng,
    preserved_state,
    undisturbed,
)
from niwaki.graph.likeness import likeness
from niwaki.graph.outline import Outline, outline
from niwaki.graph.playback import Playback, play
from niwaki.graph.recorder import record
from niwaki.graph.rerun import run
from niwaki.graph.tape import Op, Ref, Tape, first_names, named_state, tensors_in
from niwaki.graph.trace import trace
from niwaki.graph.types import Frozen, Graph, Group, Normaliser, Role, Scale, Slice, Writer

__all__ = [
    "Branch",
    "Frozen",
    "Graph",
    "Group",
    "Inputs",
    "Normaliser",
    "Op",
    "Outline",
    "Playback",
    "Ref",
    "Role",
    "Scale",
    "Slice",
    "Tape",
    "Writer",
    "as_arguments",
    "batch_size",
    "batched",
    "branches",
    "call",
    "copied",
    "described",
    "first_names",
    "likeness",
    "made_up",
    "named_state",
    "outline",
    "play",
    "preserved_mode",
    "preserved_rng",
    "preserved_state",
    "record",
    "run",
    "tensors_in",
    "trace",
    "undisturbed",
]
