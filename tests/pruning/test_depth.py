"""Whole residual branches: found, ranked, taken out, and held against the original with their sums
skipped.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import BudgetError, SettingError
from niwaki.surgery import Nothing

pytestmark = pytest.mark.usefixtures("one_thread")


class Block(nn.Module):
    """Two branches: one of a part of its own, one of three parts and a scale between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        out: Tensor = x + self.scale * self.down(torch.relu(self.up(self.norm(x))))
        return out


class Network(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(Block(8) for _ in range(depth))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def network() -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    return Network().double().eval(), torch.randn(4, 5, dtype=torch.float64)


def by_hand(model: Network, x: Tensor, dropped: set[str]) -> Tensor:
    x = model.stem(x)
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if f"blocks.{i}.mix" not in dropped:
            x = x + block.mix(x)
        if f"blocks.{i}.up" not in dropped:
            x = x + block.scale * block.down(torch.relu(block.up(block.norm(x))))
    out: Tensor = model.head(x)
    return out


def test_branches_are_found_with_what_they_cost() -> None:
    model, x = network()
    found = niwaki.branches(niwaki.trace(model, x))
    assert [branch.name for branch in found] == [
        f"blocks.{i}.{part}" for i in range(3) for part in ("mix", "up")
    ]
    assert {branch.block for branch in found} == {"blocks.0", "blocks.1", "blocks.2"}
    assert (found[0].params, found[0].macs) == (16 + 72, 4 * 64)
    assert (found[1].params, found[1].macs) == (16 + 144 + 136 + 8, 4 * 256)


@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize(
    "names", [("blocks.1.mix",), ("blocks.1.up",), ("blocks.0.*", "blocks.2.up")]
)
def test_without_them_the_rest_computes_what_it_did(names: tuple[str, ...], form: Any) -> None:
    model, x = network()
    result = niwaki.drop_branches(model, x, names=names, form=form)
    other = torch.randn(7, 5, dtype=torch.float64)
    assert not tuple(result.left_whole)
    torch.testing.assert_close(
        result.model(other), by_hand(model, other, set(result.dropped)), rtol=1e-12, atol=1e-12
    )
    gone = {b.name: b.params for b in niwaki.branches(niwaki.trace(model, x))}
    left = sum(p.numel() for p in result.model.parameters())
    scales = (
        0 if form == "graph" else 8 * sum(name.endswith("up") for name in result.dropped)
    )  # a bare parameter stays
    assert left == niwaki.count_params(model) - sum(gone[name] for name in result.dropped) + scales


def test_the_least_influential_go_first() -> None:
    model, x = network()
    with torch.no_grad():
        within.tensor(model, "blocks.1.mix.1.weight").mul_(1e-3)
        within.tensor(model, "blocks.1.mix.1.bias").mul_(1e-3)
        within.tensor(model, "blocks.2.scale").mul_(1e-2)
    result = niwaki.drop_branches(
        model, x, share=1 / 3, calibration=[torch.randn(6, 5, dtype=torch.float64)] * 2
    )
    assert result.dropped == ("blocks.1.mix", "blocks.2.up")
    assert all(0 <= value <= 2 for value in result.influence.values())
    by_value = sorted(result.influence, key=lambda name: result.influence[name])
    assert set(by_value[:2]) == set(result.dropped)
    stream = model.stem(x)
    mixed = within.layer(model, "blocks.0.mix")(stream)
    wanted = 1 - torch.cosine_similarity(stream, stream + mixed, dim=1)
    alone = niwaki.drop_branches(model, x, names="blocks.1.mix")
    assert alone.influence["blocks.0.mix"] == pytest.approx(float(wanted.mean()), rel=1e-9)


def test_it_is_pruned_and_trained_on_and_built_again(quick_latency: None) -> None:
    model, x = network()
    first = niwaki.drop_branches(model, x, share=0.5)
    assert type(first.model) is Network
    assert any(isinstance(part, Nothing) for part in first.model.modules())
    narrower = niwaki.prune(first.model, x, budget=0.5, compensation="none")
    assert narrower.record.after.params < 0.7 * narrower.record.before.params
    loss = first.model.train()(x).square().sum()
    loss.backward()
    again = niwaki.drop_branches(Network().double(), x, names=first.dropped).model
    again.load_state_dict(first.model.state_dict())
    torch.testing.assert_close(again.eval()(x), first.model.eval()(x))


def test_residual_networks_lose_whole_blocks() -> None:
    model = niwaki.models.build("resnet20").eval()
    x = torch.randn(2, 3, 32, 32)
    names = [branch.name for branch in niwaki.branches(niwaki.trace(model, x))]
    assert names == [
        "layer1.0",
        "layer1.1",
        "layer1.2",
        "layer2.1",
        "layer2.2",
        "layer3.1",
        "layer3.2",
    ]
    result = niwaki.drop_branches(model, x, names="layer3.*")
    assert result.dropped == ("layer3.1", "layer3.2")
    assert isinstance(result.model.get_submodule("layer3.1"), nn.Identity)


def test_what_is_no_branch_is_not_taken_for_one() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            left, right = self.b(x), self.c(x)
            both = left + right  # neither is computed from the other
            inner = torch.relu(both)
            return (x + inner) * inner  # what is added is used again

    assert not niwaki.branches(niwaki.trace(Sums(), torch.randn(2, 5)))
    with pytest.raises(BudgetError, match="no residual branch"):
        niwaki.drop_branches(Sums(), torch.randn(2, 5), share=0.5)


def test_code_that_cannot_do_without_a_branch_keeps_it_and_the_graph_form_does_not() -> None:
    class Named(nn.Module):
        """Looks into the part that would go."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            out: Tensor = self.head(x + nn.functional.linear(x, self.body.weight, self.body.bias))
            return out

    model, x = Named().eval(), torch.randn(3, 5)
    (branch,) = niwaki.branches(niwaki.trace(model, x))
    result = niwaki.drop_branches(model, x, names=branch.name)
    assert (result.dropped, tuple(result.left_whole)) == ((), (branch.name,))
    torch.testing.assert_close(result.model(x), model(x))
    graph = niwaki.drop_branches(model, x, names=branch.name, form="graph")
    torch.testing.assert_close(graph.model(x), model.head(model.stem(x)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, SettingError, "say which branches go"),
        ({"share": 0.5, "names": "blocks.*"}, SettingError, "say which branches go"),
        ({"names": "block.*"}, SettingError, "no branch is named like 'block"),
        ({"share": 1.0}, BudgetError, r"must be in \[0, 1\)"),
    ],
)
def test_wishes_that_cannot_be_are_refused(
    settings: Any, error: type[Exception], message: str
) -> None:
    model, x = network()
    with pytest.raises(error, match=message):
        niwaki.drop_branches(model, x, **settings)
