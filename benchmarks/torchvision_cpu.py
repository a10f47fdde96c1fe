"""Import this before torchvision where torchvision's compiled extension does not load beside a CPU
build of torch.

The extension declares torchvision's own operators. Without it torchvision stops on import, as it
registers shape functions for operators that nobody declared. Declaring the two that it asks for,
with `nms` in plain torch, is enough to build and to run every model in the coverage table. Where
the extension loads, nothing is done. For benchmarks only: niwaki itself never needs torchvision.
"""

import importlib.machinery
import importlib.util
from pathlib import Path

import torch
from torch import Tensor


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_C{suffix}"
        if path.exists():
            try:
                torch.ops.load_library(str(path))
            except OSError:
                return False
            return True
    return False


def _suppressed(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes (n × x1 y1 x2 y2) that no better one overlaps by more than the
    threshold, best first.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = scores.argsort(descending=True)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[left, :2])
        shared = (torch.minimum(boxes[best, 2:], boxes[left, 2:]) - corner).clamp(min=0).prod(1)
        left = left[shared <= threshold * (area[best] + area[left] - shared)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


if not _extension_loads() and importlib.util.find_spec("torchvision") is not None:
    _library = torch.library.Library(
        "torchvision", "DEF"
    )  # must stay referenced: its operators go with it
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.impl("nms", _suppressed, "CPU")

    import torchvision.ops.boxes

    torchvision.ops.boxes._assert_has_ops = lambda: None
