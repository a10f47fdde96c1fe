"""Networks of timm and transformers: pruned, they train, compile, and come back from a file as what
they were.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
SMALL = {
    "vocab_size": 99, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _torchvision() -> None:
    """It is made importable beside a CPU build of torch."""
    pytest.importorskip("torchvision_cpu", exc_type=ImportError)


def transformers() -> Any:
    pytest.importorskip("transformers")
    return importlib.import_module("transformers")


def llama(**settings: Any) -> nn.Module:
    library = transformers()
    torch.manual_seed(0)
    config = library.LlamaConfig(**{**SMALL, "num_key_value_heads": 2, **settings})
    model: nn.Module = library.LlamaForCausalLM(config).eval()
    return model


def words() -> dict[str, Any]:
    return {
        "input_ids": torch.randint(0, 99, (2, 7), generator=torch.Generator().manual_seed(0)),
        "use_cache": False,
    }


def small_vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=48,
        num_heads=4,
        num_classes=5,
    )
    return model.eval()


def small_swin() -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=24,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=5,
    )
    return model.eval()


def image_loss(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, 32, 32, generator=generator)
    return nn.functional.cross_entropy(model(x), torch.arange(20) % 5)


def word_loss(model: nn.Module) -> Tensor:
    tokens = words()["input_ids"]
    loss: Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return loss


CASES: dict[str, Any] = {
    "vit": (small_vit, lambda: torch.randn(2, 3, 32, 32), image_loss),
    "swin": (small_swin, lambda: torch.randn(2, 3, 32, 32), image_loss),
    "llama": (llama, words, word_loss),
}


@pytest.mark.parametrize("name", CASES)
def test_pruned_it_learns_compiles_and_comes_back(
    name: str, tmp_path: Path, quick_latency: None
) -> None:
    build, example, loss_of = CASES[name]
    model, inputs = build(), example()
    original = {key: value.clone() for key, value in model.state_dict().items()}
    result = niwaki.prune(model, inputs, budget=0.5, compensation="none")
    assert all(torch.equal(value, original[key]) for key, value in model.state_dict().items())
    smaller = result.model
    assert type(smaller) is type(model)
    assert result.record.after.params < 0.6 * result.record.before.params

    optimizer = torch.optim.AdamW(smaller.parameters(), lr=3e-3)
    smaller.train()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = loss_of(smaller)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]

    smaller.eval()
    compiled = torch.compile(smaller, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(
            output(compiled, inputs), output(smaller, inputs), rtol=1e-4, atol=1e-5
        )
    again = niwaki.load(niwaki.save(result, tmp_path / "pruned"), model=build)
    with torch.no_grad():
        assert torch.equal(output(again, inputs), output(smaller, inputs))


def output(model: Any, inputs: Any) -> Tensor:
    found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return found if isinstance(found, Tensor) else found[0]


@pytest.mark.parametrize("kind", ["Llama", "Mixtral", "Qwen3", "T5"])
def test_the_config_states_the_new_sizes(kind: str, tmp_path: Path, quick_latency: None) -> None:
    """A pruned network of transformers is saved, loaded and generated with by that library
    alone.
    """
    library, inputs = transformers(), words()
    settings: dict[str, Any] = {**SMALL, "num_key_value_heads": 2}
    if kind == "Mixtral":
        settings["num_local_experts"] = 3
    if kind == "Qwen3":
        settings["head_dim"] = 12
    if kind == "T5":
        settings = {
            "vocab_size": 99,
            "d_model": 48,
            "d_kv": 12,
            "d_ff": 80,
            "num_layers": 2,
            "num_heads": 4,
        }
        inputs["decoder_input_ids"] = inputs["input_ids"]
    cls = (
        library.T5ForConditionalGeneration
        if kind == "T5"
        else getattr(library, f"{kind}ForCausalLM")
    )
    torch.manual_seed(0)
    model = cls(getattr(library, f"{kind}Config")(**settings)).eval()
    result = niwaki.prune(model, inputs, budget=0.5, compensation="none")
    assert not [note for note in result.record.notes if "config" in note]
    within.part(result.model, "save_pretrained", MethodType)(tmp_path / "theirs")
    again = cls.from_pretrained(tmp_path / "theirs").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs)[0], result.model(**inputs)[0])
    if kind != "T5":
        assert within.size(result.model, "config.num_attention_heads") == 2
        assert within.size(result.model, "config.num_key_value_heads") == 1
        assert again.generate(inputs["input_ids"], max_new_tokens=3, do_sample=False).shape == (
            2,
            10,
        )
    assert (
        model.config.to_dict()
        == cls(getattr(library, f"{kind}Config")(**settings)).config.to_dict()
    )


def test_a_config_that_cannot_state_the_sizes_is_left_and_said(quick_latency: None) -> None:
    model = llama()
    result = niwaki.prune(
        model, words(), budget=0.5, compensation="none", only="model.layers.0.mlp*"
    )
    assert any("the model's config cannot state the cut" in note for note in result.record.notes)
    assert within.size(result.model, "config.intermediate_size") == 80


@pytest.mark.parametrize(("heads", "hidden"), [(4, 32), (2, 48)])
def test_a_config_states_the_heads_that_are_left(
    heads: int, hidden: int, quick_latency: None
) -> None:
    """Weights of a new network hardly show how many heads share a width."""
    library = transformers()
    torch.manual_seed(0)
    config = library.BertConfig(
        vocab_size=99, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=heads,
        intermediate_size=64,
    )  # fmt: skip
    model = library.BertModel(config).eval()
    small = niwaki.prune(model, {"input_ids": words()["input_ids"]}, compensation="none").model
    attention = "encoder.layer.0.attention.self.num_attention_heads"
    if within.size(small, "config.hidden_size") != hidden:
        assert within.size(small, "config.num_attention_heads") == within.size(small, attention)
    else:
        assert within.size(small, "config.num_attention_heads") == heads


def test_a_cache_among_the_outputs_is_named_as_what_keeps_the_heads() -> None:
    inputs = {"input_ids": words()["input_ids"]}
    reasons = {str(frozen.reason) for frozen in niwaki.trace(llama(), inputs).frozen}
    assert any(reason.startswith("model output past_key_values.") for reason in reasons)


def test_the_inner_width_of_experts_is_a_group() -> None:
    library = transformers()
    model = library.MixtralForCausalLM(
        library.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=3)
    ).eval()
    graph = niwaki.trace(model, words())
    assert graph["model.layers.0.mlp.experts"].width == 80
    assert not graph.unknown
