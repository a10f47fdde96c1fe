"""Where the constant of a mixing goes, and that a network that got a new bias can be saved."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.plan import Kept
from niwaki.graph.offsets import offsets


class Biasless(nn.Module):
    """The consumer `b` has neither a bias nor a normalisation behind it; that of `c` has one, that
    of `d` the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3)
        self.b = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.c = nn.Conv2d(5, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.d = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        out: Tensor = self.d(torch.relu(self.norm(self.c(x))).mean((2, 3)))  # a layer returns Any
        return out


def shifted(graph: niwaki.Graph) -> tuple[niwaki.Plan, dict[str, niwaki.Mixing]]:
    generator = torch.Generator().manual_seed(0)
    plan = niwaki.Plan({group.name: Kept(group.width, (0, 2)) for group in graph.groups})
    mixings = {
        group.name: niwaki.Mixing(
            torch.randn(group.width, 2, generator=generator, dtype=torch.float64),
            torch.randn(group.width, generator=generator, dtype=torch.float64),
        )
        for group in graph.groups
    }
    return plan, mixings


def test_the_constant_goes_into_a_bias_a_stored_mean_or_a_new_bias() -> None:
    graph = niwaki.trace(Biasless().eval(), torch.randn(2, 3, 8, 8))
    places = {
        name: [(place.kind, place.tensor) for place in offsets(graph, name)[0]]
        for name in ("a", "b", "c")
    }
    assert places == {
        "a": [("new", "b.bias")],
        "b": [("mean", "norm.running_mean")],
        "c": [("bias", "d.bias")],
    }


def test_a_network_that_got_a_new_bias_is_saved_and_loaded(
    tmp_path: Path, quick_latency: None
) -> None:
    class Shift(niwaki.Groupwise):
        def mix(
            self, group: niwaki.Group, units: Sequence[int], state: object
        ) -> tuple[niwaki.Mixing, str]:
            mixing = niwaki.Mixing.selecting(group.width, units)
            return niwaki.Mixing(
                mixing.matrix, torch.arange(group.width, dtype=torch.float64) / 10
            ), "shifted"

    model, x = Biasless().eval(), torch.randn(2, 3, 8, 8)
    result = niwaki.prune(model, x, compensation=Shift())
    assert model.b.bias is None
    assert within.tensor(result.model, "b.bias").ndim == 1
    niwaki.save(result, tmp_path / "pruned", input_shape=(3, 8, 8))
    loaded = niwaki.load(tmp_path / "pruned", Biasless())
    torch.testing.assert_close(loaded(x), result.model(x))


def test_the_border_of_a_padded_convolution_gets_the_constant_of_the_inside() -> None:
    graph = niwaki.trace(Biasless().eval(), torch.randn(2, 3, 8, 8))
    plan, mixings = shifted(graph)
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, mixings))
    assert niwaki.check(niwaki.Cut(graph, plan, mixings), pruned).difference < 1e-5
    weight = graph.state["b.weight"].double().sum((2, 3))
    assert mixings["a"].shift is not None
    torch.testing.assert_close(
        within.tensor(pruned, "b.bias").double(),
        (weight @ mixings["a"].shift)[[0, 2]],
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_check_sees_a_constant_that_was_forgotten() -> None:
    graph = niwaki.trace(Biasless().eval(), torch.randn(2, 3, 8, 8))
    plan, mixings = shifted(graph)
    plain = {name: niwaki.Mixing(mixing.matrix) for name, mixing in mixings.items()}
    with pytest.raises(niwaki.core.errors.SurgeryError, match="differs from the masked original"):
        niwaki.check(
            niwaki.Cut(graph, plan, mixings), niwaki.shrink(niwaki.Cut(graph, plan, plain))
        )
