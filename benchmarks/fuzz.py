"""Prune many random networks in random ways: each is proved and right, or refused in one sentence;
nothing else may happen.

    nice -n 10 python benchmarks/fuzz.py --count 5000
    python benchmarks/fuzz.py --seed 17          # one network, in full

The networks are made by tests/random_networks and judged by tests/fuzzing.py, on inputs of other
values, lengths and batch sizes, and in training. It goes on where the record stops: every piece of
the record says which seeds it tried, and lists those that were not as they should be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import fuzzing
import torch

OUT = Path(__file__).parent / "records" / "fuzz.json"
PIECE = 25  # networks between two writes of the record


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000, help="networks in the record at the end")
    parser.add_argument("--out", type=Path, default=OUT, help="the record")
    parser.add_argument("--again", action="store_true", help="start the record afresh")
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--seed", type=int, help="this one alone, and say what came of it")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if settings.seed is not None:
        outcome = fuzzing.tried(settings.seed)
        print(json.dumps(dataclasses.asdict(outcome), indent=2))
        return
    record: list[dict[str, Any]] = []
    if settings.out.exists() and not settings.again:
        record = json.loads(settings.out.read_text())["pieces"]
    done = max((piece["last"] + 1 for piece in record), default=settings.first)
    last = settings.first + settings.count
    while done < last:
        record.append(piece(done, min(PIECE, last - done)))
        done = record[-1]["last"] + 1
        settings.out.write_text(json.dumps({"total": total(record), "pieces": record}, indent=1))
        print(json.dumps(record[-1]["outcomes"]), done, flush=True)


def piece(first: int, count: int) -> dict[str, Any]:
    """What came of some seeds in a row."""
    start, outcomes = time.perf_counter(), []
    for seed in range(first, first + count):
        outcomes.append(fuzzing.tried(seed))
        if outcomes[-1].kind in ("WRONG", "raw"):
            print(seed, outcomes[-1].kind, outcomes[-1].words[-600:], flush=True)
    refused = Counter(fuzzing.kind_of(o.words) for o in outcomes if o.kind == "refused")
    whole = Counter(fuzzing.kind_of(why) for o in outcomes for why in o.whole)
    proved = [o for o in outcomes if o.kind == "proved"]
    return {
        "first": first,
        "last": first + count - 1,
        "commit": _commit(),
        "seconds": round(time.perf_counter() - start),
        "outcomes": dict(Counter(o.kind for o in outcomes)),
        "judged": sum(o.judged > 0 for o in proved),
        "inputs": sum(o.judged for o in proved),
        "left": round(sum(o.left for o in proved) / max(1, len(proved)), 3),
        "refused": dict(refused.most_common()),
        "whole": dict(whole.most_common()),
        "seeds": {
            kind: [o.seed for o in outcomes if o.kind == kind]
            for kind in ("WRONG", "raw", "refused")
        },
    }


def total(record: list[dict[str, Any]]) -> dict[str, int]:
    """Outcomes of all pieces."""
    counts: Counter[str] = Counter()
    for part in record:
        counts.update(part["outcomes"])
        counts["judged"] += part["judged"]
        counts["inputs"] += part["inputs"]
    return dict(counts)


def _commit() -> str:
    shown = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


if __name__ == "__main__":
    main()
