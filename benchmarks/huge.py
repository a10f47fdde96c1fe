"""Networks larger than the memory: the plan of a 7-billion-parameter Llama without weights, and
files cut shard by shard.

    python benchmarks/huge.py                       # both; the second writes 2.2 GB of random
    weights to a temporary folder

Each part runs in a process of its own, whose peak memory is printed (of all of it, torch and
transformers included).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch

SEVEN = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
ONE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
}


def on_meta(sizes: dict[str, int]) -> tuple[Any, dict[str, Any]]:
    import torchvision_cpu  # noqa: F401  # transformers looks for torchvision
    import transformers

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, num_key_value_heads=sizes["num_attention_heads"] // 4)
        )
        inputs = {"input_ids": torch.zeros(1, 16, dtype=torch.int64), "use_cache": False}
    return model.eval(), inputs


def planned() -> dict[str, Any]:
    """Trace, scores without weights, selection, and what the plan leaves, for 7 billion
    parameters.
    """
    import niwaki

    model, inputs = on_meta(SEVEN)
    start = time.perf_counter()
    graph = niwaki.trace(model, inputs)
    traced = time.perf_counter()
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "random")), "params=0.3").plan
    counts = {name: len(kept.units) for name, kept in plan.items()}
    left, macs = graph.count_params(counts), graph.count_macs(counts)
    end = time.perf_counter()
    return {
        "params": graph.count_params(), "left": left, "macs": graph.count_macs(), "macs_left": macs,
        "groups": len(graph.groups), "trace_s": traced - start, "plan_s": end - traced,
    }  # fmt: skip


def cut() -> dict[str, Any]:
    """Score and cut files of 1.1 billion parameters in bfloat16, from a temporary folder into
    another.
    """
    from safetensors.torch import save_file

    import niwaki
    from niwaki.io.sharded import INDEX

    model, inputs = on_meta(ONE)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "large"
        source.mkdir()
        table = {}
        for i, name in enumerate(model.state_dict()):
            table[name] = f"part{i // 5:02d}.safetensors"
        for file in sorted(set(table.values())):
            shard = {
                n: torch.randn(model.state_dict()[n].shape, dtype=torch.bfloat16)
                for n in table
                if table[n] == file
            }
            save_file(shard, str(source / file))
            del shard
        (source / INDEX).write_text(json.dumps({"weight_map": table}))
        model.config.save_pretrained(source)
        weights = niwaki.open_weights(source)
        start = time.perf_counter()
        graph = niwaki.trace(model, inputs)
        scores = niwaki.score(graph, "l2", weights=weights)
        scored = time.perf_counter()
        plan = niwaki.shrink_files(
            graph,
            niwaki.select(niwaki.Scores(graph, scores), 0.5).plan,
            weights,
            Path(place) / "small",
            shard_bytes=2**28,
        )
        end = time.perf_counter()
        sizes = [
            sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
            for folder in (source, Path(place) / "small")
        ]
    return {
        "bytes": sizes[0], "bytes_left": sizes[1], "config": dict(plan.sizes or {}).get("", {}),
        "trace_and_score_s": scored - start, "cut_s": end - scored,
    }  # fmt: skip


def measured(part: Callable[[], dict[str, Any]], queue: Any) -> None:
    found = part()
    queue.put(
        {**found, "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    )


def main() -> None:
    context = multiprocessing.get_context("spawn")
    for part in (planned, cut):
        queue = context.Queue()
        process = context.Process(target=measured, args=(part, queue))
        process.start()
        print(part.__name__, json.dumps(queue.get(), indent=1))
        process.join()


if __name__ == "__main__":
    main()
