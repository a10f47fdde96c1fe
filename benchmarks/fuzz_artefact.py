"""Load many damaged copies of a saved network: each is refused with a niwaki error, or loads;
nothing else may happen.

    python benchmarks/fuzz_artefact.py --count 10000

The damage is made by tests/damage.py, seeds 0 to count - 1: bytes changed, files missing, JSON
rewritten with its hashes made to fit, factories that would run something. Python's audit events
show every file written, process started and connection made.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import damage
import torch

import niwaki
from niwaki.core.blocks import LayerBlocks
from niwaki.core.errors import NiwakiError
from niwaki.surgery import with_blocks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument(
        "--blocks", action="store_true", help="of a network with block-sparse layers"
    )
    settings = parser.parse_args()
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model))
    if settings.blocks:  # layers that hold blocks of a weight, as trimming leaves them
        weight = result.model.get_parameter("conv2.weight")
        rows, columns = ([index * 4 // size for index in range(size)] for size in weight.shape[:2])
        kept = tuple((i, j) for i in range(4) for j in range(4) if (i + j) % 3)
        blocks = {"conv2": LayerBlocks(tuple(rows), tuple(columns), kept)}
        result = dataclasses.replace(result, model=with_blocks(result.model, blocks))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        saved = niwaki.save(result, Path(folder) / "saved")
        place = Path(folder) / "place"
        place.mkdir()
        table = damage.run(
            saved,
            place,
            range(settings.start, settings.start + settings.count),
            niwaki.load,
            NiwakiError,
        )
    print(json.dumps(table, indent=2))
    print(
        f"{settings.count} damaged copies in {time.perf_counter() - start:.0f} s: no crash, "
        "nothing run, nothing written"
    )


if __name__ == "__main__":
    main()
