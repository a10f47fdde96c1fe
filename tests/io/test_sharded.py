"""Weights cut in files, tensor by tensor: the same as cut in memory, and refused where they are of
another model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import CheckpointError, OutputError, SurgeryError
from niwaki.io.sharded import INDEX


class Tied(nn.Module):
    """A stream of 12 between an embedding and an output layer of the same weights, and attention
    that keeps its sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed = nn.Embedding(19, 12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12, bias=False)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.norm = nn.LayerNorm(12)
        self.last = nn.Linear(12, 19, bias=False)
        self.last.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.qkv(self.norm(x)).view(*x.shape[:2], 3, self.heads, 3).permute(2, 0, 3, 1, 4)
        seen = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = self.last(x + self.down(torch.relu(self.up(x))))
        return out


TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def built() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards with an index, as large models are kept; the tied weight once."""
    place = tmp_path / "large"
    place.mkdir()
    state = {name: tensor for name, tensor in built().state_dict().items() if name != "last.weight"}
    names = list(state)
    table = {}
    for i, members in enumerate((names[:3], names[3:5], names[5:])):
        save_file({name: state[name] for name in members}, str(place / f"part{i}.safetensors"))
        table.update(dict.fromkeys(members, f"part{i}.safetensors"))
    (place / INDEX).write_text(json.dumps({"weight_map": table}))
    (place / "tokenizer.json").write_text("{}")
    return place


def on_meta() -> niwaki.Graph:
    with torch.device("meta"):
        return niwaki.trace(Tied().eval(), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("shard_bytes", [2**30, 600])
def test_it_is_what_pruning_in_memory_gives(
    folder: Path, tmp_path: Path, shard_bytes: int, quick_latency: None
) -> None:
    weights, graph = niwaki.open_weights(folder), on_meta()
    scores = niwaki.score(graph, "l2", weights=weights)
    whole = niwaki.trace(built(), TOKENS)
    for name, values in niwaki.score(whole, "l2").items():
        torch.testing.assert_close(scores[name], values)
    plan = niwaki.select(niwaki.Scores(graph, scores), 0.5).plan
    niwaki.shrink_files(graph, plan, weights, tmp_path / "small", shard_bytes=shard_bytes)
    assert (tmp_path / "small" / "tokenizer.json").is_file()
    assert (tmp_path / "small" / INDEX).is_file() == (shard_bytes == 600)

    by_hand = niwaki.prune(built(), TOKENS, criterion="l2", budget=0.5, compensation="none")
    assert by_hand.plan.units == plan.units
    again = niwaki.open_weights(tmp_path / "small")
    expected: Any = by_hand.model
    for name in again:
        assert torch.equal(again[name], expected.state_dict()[name]), name
    kept = niwaki.Plan.from_json((tmp_path / "small" / "plan.json").read_text())
    with torch.device("meta"):
        small: Any = niwaki.shrink(niwaki.Cut(on_meta(), kept))
    small.load_state_dict(dict(again), strict=False, assign=True)
    small.last.weight = small.embed.weight
    assert small.heads == expected.heads
    with torch.no_grad():
        assert torch.equal(small(TOKENS), expected(TOKENS))


def test_numbers_keep_their_kind(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, str(file))
    weights, graph = niwaki.open_weights(folder), on_meta()
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1", weights=weights)), 0.5).plan
    niwaki.shrink_files(graph, plan, weights, tmp_path / "small")
    assert {tensor.dtype for tensor in niwaki.open_weights(tmp_path / "small").values()} == {
        torch.bfloat16
    }


def test_files_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    graph = on_meta()
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "random")), 0.5).plan
    state = load_file(folder / "part0.safetensors")
    first = next(iter(state))

    def refused(content: dict[str, Tensor], reason: str) -> None:
        save_file(content, str(folder / "part0.safetensors"))
        table = json.loads((folder / INDEX).read_text())["weight_map"]
        table = {name: file for name, file in table.items() if file != "part0.safetensors"}
        (folder / INDEX).write_text(
            json.dumps({"weight_map": {**table, **dict.fromkeys(content, "part0.safetensors")}})
        )
        with pytest.raises(CheckpointError, match=reason):
            niwaki.shrink_files(graph, plan, niwaki.open_weights(folder), tmp_path / "small")
        assert not (tmp_path / "small").exists()

    refused({**state, "stranger": torch.ones(1)}, "a stranger that the model does not have")
    refused(
        {name: tensor for name, tensor in state.items() if name != first}, f"it holds no {first}"
    )
    refused({**state, first: state[first][:5].clone()}, f"{first} is .* in the files")


def test_damaged_files_are_named(folder: Path) -> None:
    part = folder / "part1.safetensors"
    content = part.read_bytes()
    part.write_bytes(content[:20])
    with pytest.raises(CheckpointError, match=r"part1\.safetensors cannot be read"):
        niwaki.open_weights(folder)
    part.unlink()
    with pytest.raises(CheckpointError, match=r"in part1\.safetensors, which is not there"):
        niwaki.open_weights(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="which is not there"):
        niwaki.open_weights(folder)
    (folder / INDEX).write_text("[]")
    with pytest.raises(CheckpointError, match="cannot be read"):
        niwaki.open_weights(folder)
    with pytest.raises(CheckpointError, match=r"no \.safetensors file there"):
        niwaki.open_weights(folder / "none")


def test_nothing_is_replaced_unasked_and_a_shift_is_refused(folder: Path, tmp_path: Path) -> None:
    weights, graph = niwaki.open_weights(folder), on_meta()
    plan = niwaki.select(
        niwaki.Scores(graph, niwaki.score(graph, "l1", weights=weights)),
        0.5,
        niwaki.Selection(only=("up",)),
    ).plan
    (tmp_path / "small").mkdir()
    with pytest.raises(OutputError, match="exists"):
        niwaki.shrink_files(graph, plan, weights, tmp_path / "small")
    shifted = niwaki.Mixing(
        niwaki.Mixing.selecting(20, plan["up"].units).matrix, torch.ones(20, dtype=torch.float64)
    )
    with pytest.raises(SurgeryError, match="has a shift"):
        niwaki.shrink_files(graph, plan, weights, tmp_path / "other", mixings={"up": shifted})


def test_a_wrong_size_is_seen_without_weights() -> None:
    graph = on_meta()
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "random")), 0.5).plan
    model = niwaki.shrink(niwaki.Cut(graph, niwaki.Plan(plan.units, {})))
    with pytest.raises(SurgeryError, match=r"does not run|is left of it"):
        niwaki.proof.check_structure(graph, plan, model)
    niwaki.proof.check_structure(graph, plan, niwaki.shrink(niwaki.Cut(graph, plan)))
