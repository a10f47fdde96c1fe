"""Pruned networks of transformers through `save_pretrained` → `from_pretrained` → `generate`.

Tiny networks with random weights are pruned, all settings as they are by default, and written by
the library's own `save_pretrained`. A new process, which does not import niwaki, loads each with `from_pretrained`,
asks the loader what was missing or unexpected, and compares outputs and generated tokens with what
the pruned network gave in memory.

    python benchmarks/round_trip.py [--only Llama,Bert] [--out benchmarks/records/round_trip.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pages import as_table
from torch import nn

HERE = Path(__file__).parent
START, END = "<!-- from benchmarks/records/round_trip.json -->", "<!-- end -->"

BODY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 80,
}
WORDS = {"vocab_size": 101, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**BODY, **WORDS, "max_position_embeddings": 40}
GROUPED = {**TEXT, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 12}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 56}
LABELS = {"num_labels": 7}
SPEECH = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 6,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "num_mel_bins": 20,
    "max_source_positions": 30, "max_target_positions": 40, **WORDS, "decoder_start_token_id": 1,
}  # fmt: skip
SEQUENCES = {
    "d_model": 48, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 6, "vocab_size": 101,
    "decoder_start_token_id": 0,
}  # fmt: skip

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {  # name → class, config, its entries
    "Llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "Mistral": ("MistralForCausalLM", "MistralConfig", WIDE),
    "Mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", WIDE),
    "Qwen3-MoE": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**WIDE, **EXPERTS}),
    "Gemma": ("GemmaForCausalLM", "GemmaConfig", WIDE),
    "Gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**WIDE, "query_pre_attn_scalar": 12}),
    "Phi": ("PhiForCausalLM", "PhiConfig", {**TEXT, "partial_rotary_factor": 0.5}),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_inner": 80, "n_positions": 40, **WORDS},
    ),
    "BERT": ("BertForSequenceClassification", "BertConfig", {**TEXT, **LABELS}),
    "RoBERTa": ("RobertaForSequenceClassification", "RobertaConfig", {**TEXT, **LABELS}),
    "DistilBERT": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"dim": 48, "hidden_dim": 80, "n_layers": 2, "n_heads": 6, "vocab_size": 101,
         "max_position_embeddings": 40, "pad_token_id": 0, **LABELS},
    ),
    "ViT": (
        "ViTForImageClassification",
        "ViTConfig",
        {**BODY, "image_size": 32, "patch_size": 8, **LABELS},
    ),
    "Whisper": ("WhisperForConditionalGeneration", "WhisperConfig", SPEECH),
    "T5": ("T5ForConditionalGeneration", "T5Config", SEQUENCES),
}  # fmt: skip


def inputs_of(name: str) -> dict[str, Any]:
    """What each is called with."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(3, 101, (2, 12), generator=generator)
    if name == "ViT":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    if name == "Whisper":
        sound = torch.randn(2, 20, 60, generator=generator)
        return {"input_features": sound, "decoder_input_ids": words[:, :5], "use_cache": False}
    if name == "T5":
        return {"input_ids": words, "decoder_input_ids": words[:, :5], "use_cache": False}
    decodes = CASES[name][0].endswith(("CausalLM", "LMHeadModel"))
    return {"input_ids": words, **({"use_cache": False} if decodes else {})}


def outputs_of(name: str, model: nn.Module) -> dict[str, torch.Tensor]:
    """Logits, and the tokens of greedy decoding where the class generates."""
    inputs = inputs_of(name)
    with torch.no_grad():
        told = {"logits": model(**inputs).logits.contiguous()}
        if hasattr(model, "generate") and "pixel_values" not in inputs:
            start = {
                key: value
                for key, value in inputs.items()
                if key in ("input_ids", "input_features")
            }
            if CASES[name][0].endswith("Classification"):
                return told
            told["tokens"] = model.generate(**start, max_new_tokens=6, do_sample=False).contiguous()  # type: ignore[operator]
    return told


def prune_and_save(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """Prune one, and write it with what it computes."""
    import transformers
    from safetensors.torch import save_file

    import niwaki

    kind, config, entries = CASES[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**entries)).eval()
    for parameter in model.parameters():  # a new network's are so small that nothing attends
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    start = time.perf_counter()
    result = niwaki.prune(model, inputs_of(name), **settings)
    seconds = time.perf_counter() - start
    result.model.save_pretrained(folder)
    save_file(outputs_of(name, result.model), folder / "expected.bin")
    before, after = result.record.before.params, result.record.after.params
    unstated = [note for note in result.record.notes if "cannot state" in note]
    return {
        "params": before, "left": after, "seconds": round(seconds, 1), "unstated": unstated,
        "changed": changes(model.config.to_dict(), result.model.config.to_dict()),
    }  # fmt: skip


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Entries of a config that differ, with their new values."""
    return {
        key: value
        for key, value in after.items()
        if value != before.get(key) and key not in ("dtype", "architectures")
    }


def load_and_compare(name: str, folder: Path) -> dict[str, Any]:
    """In the new process: what the library's own loader makes of a folder."""
    import transformers
    from safetensors.torch import load_file

    told: dict[str, Any] = {}
    try:
        model, info = getattr(transformers, CASES[name][0]).from_pretrained(
            folder, output_loading_info=True
        )
        told["warned"] = {key: [str(v) for v in value] for key, value in info.items() if value}
        expected, got = load_file(folder / "expected.bin"), outputs_of(name, model)
        told["difference"] = float((expected["logits"] - got["logits"]).abs().max())
        if "tokens" in expected:
            told["generates"] = torch.equal(expected["tokens"], got["tokens"])
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return told


def measured(names: list[str], **settings: Any) -> dict[str, dict[str, Any]]:
    """All of it; the second half in one new process."""
    with tempfile.TemporaryDirectory() as root:
        rows = {}
        for name in names:
            try:
                rows[name] = prune_and_save(name, Path(root) / name, **settings)
            except Exception as error:
                rows[name] = {"error": f"{type(error).__name__}: {error}"}
        written = [name for name in names if "error" not in rows[name]]
        command = [sys.executable, __file__, "--load", root, "--only", ",".join(written)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
        loaded = json.loads(done.stdout.splitlines()[-1])
    return {name: {**row, **loaded.get(name, {})} for name, row in rows.items()}


def passed(row: dict[str, Any]) -> bool:
    """Whether a network came back as it was."""
    return (
        "error" not in row
        and not row["warned"]
        and row["difference"] <= 1e-5
        and row.get("generates", True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--load", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = [name for name in asked.only.split(",") if name]
    import torchvision_cpu  # noqa: F401  # before transformers, which imports torchvision
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    if asked.load:
        print(json.dumps({name: load_and_compare(name, asked.load / name) for name in names}))
        return
    rows = measured(names)
    record = {"versions": versions(), "rows": rows}
    print(as_markdown(record))
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(passed(row) for row in rows.values()))


def versions() -> dict[str, str]:
    """Of what was run."""
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


def as_markdown(record: dict[str, Any]) -> str:
    """The table of the page."""
    heads = "network, parameters, left, config states, logits differ by, generates the same"
    return as_table(heads.split(", "), [line(name, row) for name, row in record["rows"].items()])


def line(name: str, row: dict[str, Any]) -> list[object]:
    """One row of the table."""
    if "error" in row:
        return [name, row.get("params", ""), row.get("left", ""), row["error"], "", ""]
    states = ", ".join(f"{key} {value}" for key, value in row["changed"].items())
    tokens = {True: "yes", False: "NO", None: ""}[row.get("generates")]
    warned = f" (loader: {row['warned']})" if row["warned"] else ""
    sizes = f"{row['params']:,}", f"{row['left']:,}"
    return [name, *sizes, f"{states}{warned}", f"{row['difference']:.1e}", tokens]


if __name__ == "__main__":
    main()
