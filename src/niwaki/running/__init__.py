"""Any model is run, recorded and run again here, left as it was found, and held against another
run.
"""

from niwaki.core.inputs import Inputs
from niwaki.running.duplicates import duplicate
from niwaki.running.inputs import (
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
    seed_all,
)
from niwaki.running.recorder import record
from niwaki.running.replay import Playback, live_bytes, play, restated
from niwaki.running.rerun import plainly, run
from niwaki.running.tape import Op, Ref, Tape, first_names, named_state, tensor_at, tensors_in
from niwaki.running.writes import undisturbed, written_back

__all__ = [
    "Inputs",
    "Op",
    "Playback",
    "Ref",
    "Tape",
    "as_arguments",
    "batch_size",
    "batched",
    "call",
    "copied",
    "described",
    "duplicate",
    "first_names",
    "live_bytes",
    "made_up",
    "named_state",
    "plainly",
    "play",
    "preserved_mode",
    "preserved_rng",
    "preserved_state",
    "record",
    "restated",
    "run",
    "seed_all",
    "tensor_at",
    "tensors_in",
    "undisturbed",
    "written_back",
]
