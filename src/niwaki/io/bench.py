"""Time ONNX files on the machine at hand, and print JSON. It needs onnxruntime and numpy alone.

    python bench.py                                 # all .onnx files beside it, timed in turns
    python bench.py model.onnx                      # milliseconds of one run
    python bench.py original.onnx model.onnx        # and how they compare, timed in turns
    python bench.py model.onnx --batch 8 --threads 4 --provider CUDAExecutionProvider

`niwaki export --bench` puts this file beside the network. Runs of several files are timed in
turns, so that a machine that grows warm or busy does so for all; ratios are medians over turns.
What it prints, kept as device.json, is what a budget is met by: latency=0.5,measured=device.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
WARM_UP = 3


def main(arguments: list[str] | None = None) -> int:
    """Time the files that the command line names; 2 where that cannot be."""
    asked = _asked(arguments)
    try:
        print(json.dumps(measured(asked), indent=2))
    except (ImportError, OSError, ValueError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    return 0


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """File → milliseconds, and each file's ratio to the first one.

    Raises:
        ImportError: onnxruntime or numpy is not installed.
        ValueError: a file that cannot be loaded, or an axis whose size is not known.
    """
    import onnxruntime

    runs = {}
    for path in asked.files:
        session = _session(onnxruntime, path, asked)
        runs[path] = (session, _inputs(session, path, asked))
        for _ in range(WARM_UP):
            session.run(None, runs[path][1])
    taken = _in_turns(runs, asked.seconds)
    first = taken[asked.files[0]]
    return {
        "files": {
            path: {**_described(times, first), **_size(runs[path][0])}
            for path, times in taken.items()
        },
        "batch": asked.batch,
        "threads": asked.threads,
        "provider": asked.provider,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.machine()} {platform.processor()}".strip(),
        "system": platform.platform(),
    }


def _in_turns(runs: dict[str, Any], seconds: float) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {path: [] for path in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(next(iter(taken.values()))) < 10:
        for path, (session, inputs) in runs.items():
            start = time.perf_counter()
            session.run(None, inputs)
            taken[path].append(1000 * (time.perf_counter() - start))
    return taken


def _described(times: list[float], first: list[float]) -> dict[str, Any]:
    quarters = statistics.quantiles(times, n=4)
    ratio = statistics.median(a / b for a, b in zip(times, first))  # noqa: B905  # one a turn
    return {
        "median_ms": round(statistics.median(times), 4),
        "quartiles_ms": [round(quarters[0], 4), round(quarters[2], 4)],
        "runs": len(times),
        "ratio_to_first": round(ratio, 4),
    }


def _size(session: Any) -> dict[str, int]:
    """Multiply-adds of one sample, where the file states them."""
    stated = session.get_modelmeta().custom_metadata_map.get("niwaki.macs")
    return {"macs": int(stated)} if stated else {}


def _session(onnxruntime: Any, path: str, asked: argparse.Namespace) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if asked.threads:
        options.intra_op_num_threads = asked.threads
    there = onnxruntime.get_available_providers()
    if asked.provider not in there:
        raise ValueError(f"this onnxruntime has no {asked.provider}; it has {', '.join(there)}")
    try:
        return onnxruntime.InferenceSession(path, options, providers=[asked.provider])
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error


def _inputs(session: Any, path: str, asked: argparse.Namespace) -> dict[str, Any]:
    import numpy

    chance = numpy.random.default_rng(0)
    made = {}
    for entry in session.get_inputs():
        shape = asked.shape.get(entry.name) or [
            size if isinstance(size, int) else asked.batch if axis == 0 else None
            for axis, size in enumerate(entry.shape)
        ]
        if None in shape or entry.type not in TYPES:
            raise ValueError(
                f"{path} takes {entry.name} of shape {entry.shape} and type {entry.type}; give its "
                f"shape as --shape {entry.name}=1,3,224,224"
            )
        kind = TYPES[entry.type]
        whole = kind in ("int64", "int32", "bool")
        values = chance.integers(0, 2, shape) if whole else chance.standard_normal(shape)
        made[entry.name] = values.astype(kind)
    return made


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE.onnx")
    parser.add_argument("--batch", type=int, default=1, help="samples, where a file takes any")
    parser.add_argument("--threads", type=int, default=0, help="0: as onnxruntime has it")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each file")
    parser.add_argument("--provider", default="CPUExecutionProvider")
    parser.add_argument("--shape", action="append", type=_shape, default=[], metavar="NAME=SIZES")
    asked = parser.parse_args(arguments)
    asked.shape = dict(asked.shape)
    beside = [str(path) for path in sorted(Path(__file__).parent.glob("*.onnx"))]
    asked.files = asked.files or sorted(beside, key=lambda path: not path.endswith("model.onnx"))
    if not asked.files:
        parser.error("no .onnx file is beside this script; name one")
    return asked


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.partition("=")
    return name, [int(size) for size in sizes.split(",")]


if __name__ == "__main__":
    sys.exit(main())
