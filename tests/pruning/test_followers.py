"""Head dimensions that code makes of a stream's width follow it."""

from __future__ import annotations

import fuzzing
import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.graph import Tie
from niwaki.pruning.followers import Followers


class Attention(nn.Module):
    """As most code in the wild has it: the width comes from the input, the heads from self."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.num_heads, self.how = heads, how
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        if self.how == "one layer":
            q, k, v = (
                self.qkv(x)
                .reshape(b, n, 3, self.num_heads, c // self.num_heads)
                .permute(2, 0, 3, 1, 4)
                .unbind(0)
            )
        else:
            parts = self.qkv(x).chunk(3, -1)
            q, k, v = (
                part.view(b, n, self.num_heads, c // self.num_heads).transpose(1, 2)
                for part in parts
            )
        seen = (q @ k.transpose(-2, -1) * 0.25).softmax(-1) @ v
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(b, n, c))
        return out


class Blocks(nn.Module):
    def __init__(self, width: int, heads: tuple[int, ...], how: str = "one layer") -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(7, width), nn.Linear(width, 5)
        self.blocks = nn.ModuleList(Attention(width, count, how) for count in heads)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 30), nn.GELU(), nn.Linear(30, width)) for _ in heads
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, mlp in zip(self.blocks, self.mlps, strict=True):
            x = x + block(x)
            x = x + mlp(x)
        out: Tensor = self.head(x.mean(1))
        return out


X = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", ["one layer", "three parts"])
@pytest.mark.parametrize("heads", [(3,), (3, 6), (1, 2)])
def test_no_group_is_left_whole(heads: tuple[int, ...], how: str) -> None:
    torch.manual_seed(0)
    result = niwaki.prune(Blocks(24, heads, how).eval(), X, 0.5)
    assert not result.left_whole
    width = len(result.plan["stem"].units)
    assert width == 12
    ties = result.cut.graph.ties
    assert {tie.part for tie in ties} <= set(result.plan.kept)
    assert {tie.times for tie in ties} == set(heads)
    for tie in ties:
        assert len(result.plan[tie.part].units) * tie.times == width
    longer = torch.randn(3, 14, 7)
    assert result.model(longer).shape == (3, 5)


@pytest.mark.parametrize("scope", ["local", "global", "cost"])
@pytest.mark.parametrize("budget", ["params=0.4", "macs=0.55", "params=0.3,macs=0.4"])
def test_budgets_are_met_in_steps_that_all_heads_can_take(scope: str, budget: str) -> None:
    torch.manual_seed(1)
    model = Blocks(36, (3, 4)).eval()
    result = niwaki.prune(model, X, budget, scope=scope, compensation="none")
    before, after = result.record.before, result.record.after
    width = len(result.plan["stem"].units) if "stem" in result.plan.kept else 36
    assert width % 12 == 0
    gone = {"params": 1 - after.params / before.params, "macs": 1 - after.macs / before.macs}
    for part in budget.split(","):
        unit, _, share = part.partition("=")
        assert gone[unit] >= float(share) - 1e-9


def test_a_stream_that_is_skipped_leads_nothing() -> None:
    torch.manual_seed(0)
    result = niwaki.prune(Blocks(24, (3,)).eval(), X, 0.5, skip="stem")
    assert "stem" not in result.plan.kept
    assert {len(result.plan[name].units) for name in result.plan.kept} == {15}  # the mlp's alone


def test_ties_are_read_off_the_code() -> None:
    graph = niwaki.trace(Blocks(24, (3, 4)).eval(), X)
    assert graph.ties == (
        Tie("stem", "blocks.0.qkv#2", 3),
        Tie("stem", "blocks.1.qkv#2", 4),
    )
    assert niwaki.trace(nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 2)).eval(), X).ties == ()


class Across(Attention):
    """Attention between head dimensions (XCiT, Restormer), whose number a softmax keeps."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        if self.how == "one layer":
            parts = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
            q, k, v = parts.permute(2, 0, 3, 4, 1)
        elif self.how == "unflatten":
            q, k, v = (
                part.unflatten(-1, (self.num_heads, x.size(-1) // self.num_heads)).permute(
                    0, 2, 3, 1
                )
                for part in self.qkv(x).chunk(3, -1)
            )
        else:
            q, k, v = (
                part.transpose(1, 2).view(b, self.num_heads, c // self.num_heads, n)
                for part in self.qkv(x).chunk(3, -1)
            )
        seen = (q @ k.transpose(-2, -1) * 0.25).softmax(-1) @ v
        return self.proj(seen.permute(0, 3, 1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class Torchs(nn.Module):
    """Torch's own attention, alone or in its own layers."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "alone":
            self.inner: nn.Module = nn.MultiheadAttention(width, heads, batch_first=True)
        elif how == "encoder":
            self.inner = nn.TransformerEncoderLayer(width, heads, 32, 0.0, batch_first=True)
        else:
            self.inner = nn.TransformerDecoderLayer(width, heads, 32, 0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "alone":
            return self.inner(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]
        if self.how == "encoder":
            return self.inner(x)  # type: ignore[no-any-return]
        return self.inner(x, x[:, :4])  # type: ignore[no-any-return]


class Around(nn.Module):
    """A stream around an attention."""

    def __init__(self, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.stem, self.attention, self.head = (
            nn.Linear(7, width),
            attention,
            nn.Linear(width, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.attention(x)).mean(1))  # type: ignore[no-any-return]


WHOLE_HEADS = {
    "one layer": Across,
    "unflatten": Across,
    "transposed": Across,
    "alone": Torchs,
    "encoder": Torchs,
    "decoder": Torchs,
}


@pytest.mark.parametrize("budget", [0.5, "params=0.4"])
@pytest.mark.parametrize("how", WHOLE_HEADS)
def test_heads_follow_where_their_dimensions_stay(how: str, budget: float | str) -> None:
    torch.manual_seed(0)
    model = Around(WHOLE_HEADS[how](30, 5, how), 30).eval()
    result = niwaki.prune(model, X, budget, scope="global", compensation="none")
    assert not result.left_whole
    width = len(result.plan["stem"].units)
    assert width % 6 == 0
    assert width < 30
    assert {tie.times for tie in result.cut.graph.ties} == {6}
    for tie in result.cut.graph.ties:
        assert len(result.plan[tie.part].units) * 6 == width
    judge = fuzzing.Judge(niwaki.trace(model, X), result.cut)
    for seed, (batch, length) in enumerate([(3, 9), (1, 20), (5, 4)]):
        x = torch.randn(batch, length, 7, generator=torch.Generator().manual_seed(seed))
        for training in (False, True):
            wanted = judge(x, training)
            assert wanted is not None
            assert fuzzing.distance(wanted, fuzzing.run(result.model, x, training)) < 1e-4


def test_what_follows_counts_in_the_loss_of_what_leads() -> None:
    graph = niwaki.trace(Blocks(24, (3, 4)).eval(), X)
    following = Followers(graph, list(graph.groups), {}, niwaki.Selection())
    flat = {group.name: torch.zeros(group.width + 1) for group in graph.groups}
    steep = torch.arange(6, -1, -1).float()  # of six dimensions a head, one each
    joined = following.joined({**flat, "blocks.1.qkv#2": steep})
    assert joined["stem"].tolist() == [float(6 - k // 4) for k in range(25)]
    assert joined["mlps.0.0"].tolist() == [0.0] * 31
    result = niwaki.prune(Blocks(24, (3, 4)).eval(), X, "macs=0.5", scope="auto")
    assert not result.left_whole
