"""Batches that gradients are taken on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import TraceError


class Linearly(nn.Module):
    """Attention without a softmax, of which torch runs other operators for a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x).sigmoid(), self.k(x).sigmoid()
        kv = torch.einsum("btc,btd->bcd", k, self.v(x))
        scale = torch.einsum("btc,bc->bt", q, k.sum(1))
        seen = torch.einsum("btc,bcd->btd", q, kv) / scale[..., None]
        return self.out(seen).mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("criterion", ["taylor", "taylor-activation", "fisher"])
def test_a_batch_of_one_counts_as_its_sample(criterion: str) -> None:
    torch.manual_seed(0)
    model, x = Linearly().eval(), torch.randn(4, 5, 8)
    graph = niwaki.trace(model, x)
    labels = torch.tensor([0, 1, 2, 1])
    alone, together = (
        niwaki.score(graph, criterion, calibration=niwaki.Calibration.labelled(batches))
        for batches in ([(x[:1], labels[:1])], [(x[:1].repeat(2, 1, 1), labels[:1].repeat(2))])
    )
    for name, scores in alone.items():
        assert torch.allclose(scores, together[name])


class Turning(nn.Module):
    """Its path hangs on the sign of a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x)) if float(x.mean()) > 0 else torch.tanh(self.first(x))
        return self.last(h)  # type: ignore[no-any-return]


def test_batches_on_another_path_are_left_out_and_said() -> None:
    torch.manual_seed(0)
    model, x = Turning().eval(), torch.rand(3, 4)
    some = niwaki.prune(model, x, criterion="taylor", calibration=[x, -x])
    assert any("another path on 1 of the calibration batches" in n for n in some.record.notes)
    with pytest.raises(TraceError, match="another path"):
        niwaki.prune(model, x, criterion="taylor", calibration=[-x])
