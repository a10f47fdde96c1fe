"""torch's encoder with padding: any number of heads may be left, also after saving and loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import within
from torch import nn

import niwaki
from niwaki.surgery.nested import with_plain_tensors

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Reader(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        width = 6 * heads
        self.words = nn.Embedding(50, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, heads, 32, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(
            self.body(self.words(ids), src_key_padding_mask=ids == 0)[:, 0]
        )
        return out


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("heads", "left", "packs"), [(6, 3, 0), (4, 2, True), (2, 1, 0)])
def test_any_number_of_heads_may_be_left(
    heads: int, left: int, packs: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    ids = torch.randint(1, 50, (3, 9))
    ids[1, 6:] = ids[2, 4:] = 0
    result = niwaki.prune(Reader(heads).eval(), ids, compensation="none")
    body = within.part(result.model, "body", nn.TransformerEncoder)
    assert [within.size(layer, "self_attn.num_heads") for layer in body.layers] == [left, left]
    assert body.use_nested_tensor == packs
    assert result.record.after.params < 0.45 * result.record.before.params
    again = niwaki.load(
        niwaki.save(result, tmp_path / "pruned"), model=lambda: Reader(heads).eval()
    )
    with torch.no_grad():
        assert torch.equal(again(ids), result.model(ids))


@pytest.mark.parametrize(("heads", "off"), [(2, False), (3, True), (1, True)])
def test_packing_is_off_for_an_odd_number_of_heads_alone(heads: int, off: bool) -> None:
    sizes = {"body.layers.1.self_attn": {"num_heads": heads}}
    changed = with_plain_tensors(Reader(4), sizes)
    assert changed == {**sizes, **({"body": {"use_nested_tensor": 0}} if off else {})}
