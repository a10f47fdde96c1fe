"""Pruned networks in another process and another runtime: saved and loaded to the last bit,
exported to ONNX and .pt2.

    python -m pip install --no-deps -r requirements-bench.txt
    python benchmarks/portability.py --out benchmarks/portability.json

Every network of tests/zoo.py and ten of timm and transformers are pruned by half, saved, loaded in
a new process and compared bit by bit on new inputs; then exported, run in ONNX Runtime and
torch.export's own runtime, and compared. The ONNX file of the original is written too, so that what
it shrank by can be held against what the parameters did.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision_cpu  # noqa: F401  # before timm and transformers, which import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import zoo

import niwaki
from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic
from niwaki.io.exported import tensors
from niwaki.running import call, copied

TIMM = (
    "resnet18",
    "mobilenetv2_100",
    "efficientnet_b0",
    "convnext_atto",
    "regnety_002",
    "densenet121",
)
BERT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 211,
}
GPT = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 211,
    "n_positions": 64,
    "use_cache": False,
}
LLAMA = {**BERT, "num_key_value_heads": 2, "use_cache": False}
TOKENS = partial(torch.randint, 211, (2, 12))

LOADS = """
import sys, torch
sys.path[:0] = sys.argv[2:]
import torchvision_cpu, niwaki
from niwaki.io.exported import tensors
from niwaki.graph import call, copied
inputs, wanted = torch.load(sys.argv[1] + "/outputs.pt", weights_only=False)
model = niwaki.load(sys.argv[1] + "/net")
with torch.no_grad():
    got = tensors(call(model, inputs))
print(len(got) == len(wanted) and all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(wanted, got)))
"""


def cases(
    libraries: bool,
) -> Iterator[tuple[str, Callable[[], nn.Module], Callable[[nn.Module, int], Any], str | None]]:
    """Name, builder, inputs of a seed, factory."""
    if not libraries:
        for name in zoo.MODELS:
            yield f"zoo/{name}", partial(zoo.build, name), zoo.inputs, f"zoo:build:name='{name}'"
        return
    for name in TIMM:
        yield (
            f"timm/{name}",
            partial(niwaki.models.build, f"timm:{name}:num_classes=11"),
            _image,
            None,
        )
    vit = "timm:vit_tiny_patch16_224:num_classes=11,depth=3,img_size=64"
    yield "timm/vit_tiny", partial(niwaki.models.build, vit), _image, None
    for kind, config in (
        ("BertForSequenceClassification", BERT),
        ("GPT2LMHeadModel", GPT),
        ("LlamaForCausalLM", LLAMA),
    ):
        build = partial(niwaki.models.build, f"transformers:{kind}", arguments={"config": config})
        yield f"transformers/{kind}", build, _tokens, None


def _image(_: nn.Module, seed: int) -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def _tokens(_: nn.Module, seed: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(211, (2, 12), generator=torch.Generator().manual_seed(seed))}


def look(
    name: str,
    build: Callable[[], nn.Module],
    inputs: Callable[[Any, int], Any],
    factory: str | None,
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = build().eval()
    row: dict[str, Any] = {"network": name}
    try:
        result = niwaki.prune(
            model, inputs(model, 1), criterion="l1", budget=0.5, compensation="none"
        )
    except niwaki.NiwakiError as error:
        return {**row, "refused": str(error)[:160]}
    row |= {
        "params_before": result.record.before.params,
        "params_after": result.record.after.params,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            row["equal_in_new_process"] = _reloaded(result, folder, inputs(model, 2), factory)
        except niwaki.NiwakiError as error:
            row["equal_in_new_process"] = str(error)[:160]
        for kind, export in (("onnx", niwaki.export_onnx), ("pt2", niwaki.export_program)):
            try:
                small = export(result.model, inputs(model, 3), f"{folder}/small.{kind}")
                row[kind] = {
                    "difference": small.difference,
                    "bytes": small.bytes,
                    "any_batch": len(small.batches) > 1,
                }
                if kind == "onnx":
                    whole = export(model, inputs(model, 3), f"{folder}/whole.{kind}")
                    row[kind] |= {"bytes_before": whole.bytes}
            except niwaki.NiwakiError as error:
                row[kind] = {"refused": str(error)[:160]}
    return row


def _reloaded(result: niwaki.Result, folder: str, inputs: Any, factory: str | None) -> bool | str:
    niwaki.save(result, f"{folder}/net", model=factory)
    with torch.no_grad():
        torch.save((inputs, tensors(call(result.model, copied(inputs)))), f"{folder}/outputs.pt")
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "tests"), str(here.parent / "src")]
    done = subprocess.run(
        [sys.executable, "-c", LOADS, folder, *paths],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
    )
    return done.stdout.strip() == "True" or done.stderr.strip().splitlines()[-1][:160]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="names that hold this text")
    settings = parser.parse_args()
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for case in (*cases(libraries=True), *cases(libraries=False)):
        if settings.only and settings.only not in case[0]:
            continue
        rows.append(look(*case))
        print(json.dumps(rows[-1]), flush=True)
        if settings.out is not None:
            text = json.dumps(
                {"versions": versions(), "hardware": hardware(), "rows": rows}, indent=1
            )
            write_text_atomic(settings.out, text + "\n")
    pruned = [row for row in rows if "refused" not in row]
    equal = sum(row["equal_in_new_process"] is True for row in pruned)
    print(
        f"{len(rows)} networks, {len(pruned)} pruned, {equal} equal in a new process, "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
