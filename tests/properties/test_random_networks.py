"""Networks of random parts, pruned in random ways: what comes back is right by a path that is none
of niwaki's, and what does not is refused in a sentence. `benchmarks/fuzz.py` tries thousands.
"""

from __future__ import annotations

import fuzzing
import pytest
import torch
import within
from absent import NAN, PassingOverNan
from random_networks import drawn
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


@pytest.mark.parametrize("seed", range(24))
def test_a_random_network_is_proved_and_right_or_refused(seed: int) -> None:
    outcome = fuzzing.tried(seed)
    assert outcome.kind in ("proved", "refused", "nothing"), (outcome.parts, outcome.words)
    if outcome.kind != "proved":
        assert "\n" not in outcome.words
        assert len(outcome.words) > 20


def test_the_oracle_is_what_a_hand_makes_of_it() -> None:
    """Absent channels are left out of sums and of statistics, and of nothing else."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)).double()
    x, kept = torch.randn(5, 4).double(), [0, 2, 5]
    h = nn.functional.layer_norm(model[0](x)[:, kept], (3,))
    wanted = nn.functional.linear(
        nn.functional.gelu(h),
        within.tensor(model, "3.weight")[:, kept],
        within.tensor(model, "3.bias"),
    )
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            within.tensor(model, name)[[1, 3, 4]] = NAN
    with PassingOverNan():
        assert torch.allclose(model(x), wanted)


def test_a_wrong_network_is_seen() -> None:
    seed = next(s for s in range(24) if fuzzing.tried(s).judged)
    network, settings = drawn(seed), fuzzing.settings_of(seed)
    result = fuzzing._pruned(network, dict(settings))
    with torch.no_grad():
        for parameter in within.layer(result.model, "head").parameters():
            parameter.mul_(1.01)
    outcome = fuzzing.Outcome(seed, "proved", [], settings)
    assert list(fuzzing._wrongs(network, result, outcome))
