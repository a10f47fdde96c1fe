"""A YOLO, pruned and still detecting: mAP before, after, and after recovery in its own trainer.

A small YOLOv8 is trained by ultralytics on rectangles and discs in noise (made on the spot), pruned
with niwaki, fine-tuned by the same trainer, validated by its own mAP, and exported.

    python benchmarks/yolo.py            # into benchmarks/records/yolo.json
    python benchmarks/yolo.py --page     # the table of docs/guides/yolo.md

It needs ultralytics, which is no dependency of niwaki.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import as_table, write_between
from torch import nn

import niwaki

SIDE, CLASSES = 96, ("rectangle", "disc")
SETTINGS = {
    "imgsz": SIDE,
    "batch": 16,
    "device": "cpu",
    "workers": 0,
    "plots": False,
    "verbose": False,
}
ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "benchmarks/records/yolo.json", ROOT / "docs/guides/yolo.md"
START, END = "<!-- from benchmarks/records/yolo.json -->", "<!-- end -->"


def scene(chance: np.random.Generator) -> tuple[np.ndarray[Any, Any], list[str]]:
    """An image (side, side, 3) of one to three shapes, and a line of text for each."""
    image = chance.normal(110, 25, (SIDE, SIDE, 3))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lines = []
    for _ in range(chance.integers(1, 4)):
        kind, half = int(chance.integers(2)), chance.uniform(8, 18, 2)
        half = half if kind == 0 else np.full(2, half[0])
        middle = chance.uniform(half, SIDE - half)
        far = np.stack([(columns - middle[0]) / half[0], (rows - middle[1]) / half[1]])
        inside = np.abs(far).max(0) < 1 if kind == 0 else (far**2).sum(0) < 1
        image[inside] = chance.uniform(0, 255, 3)
        box = (*middle / SIDE, *2 * half / SIDE)
        lines.append(f"{kind} " + " ".join(f"{number:.5f}" for number in box))
    return image.clip(0, 255).astype(np.uint8), lines


def make_data(folder: Path, train: int = 256, val: int = 64) -> Path:
    """A data set in the form that ultralytics reads; its yaml file."""
    from PIL import Image

    chance = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, lines = scene(chance)
            Image.fromarray(image).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text("\n".join(lines))
    file = folder / "data.yaml"
    names = "".join(f"\n  {n}: {name}" for n, name in enumerate(CLASSES))
    file.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:{names}\n")
    return file


def small_yolo(folder: Path) -> Any:
    """YOLOv8, half as wide as its smallest."""
    import yaml
    from ultralytics import YOLO
    from ultralytics.utils import ROOT

    config = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
    config.update(nc=len(CLASSES), scales={"n": [0.33, 0.125, 1024]})
    file = folder / "yolov8n.yaml"
    file.write_text(yaml.safe_dump(config))
    return YOLO(str(file))


def own_trainer(pruned: nn.Module) -> Any:
    """ultralytics' trainer builds its network from a yaml file, which knows the old widths; this one
    trains the pruned network.
    """
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):  # type: ignore[misc]
        def get_model(
            self, cfg: Any = None, weights: Any = None, verbose: bool = True
        ) -> nn.Module:
            for parameter in pruned.parameters():
                parameter.requires_grad_(True)
            return pruned

    return Trainer


def average_precision(yolo: Any, data: Path) -> float:
    """mAP at IoU 0.5 to 0.95, by ultralytics' own validator, on images that nothing was trained
    on.
    """
    from ultralytics import YOLO

    twin = YOLO(yolo.cfg if hasattr(yolo, "cfg") and isinstance(yolo.cfg, str) else "yolov8n.yaml")
    twin.model = copy_of(yolo.model)  # its validator folds BatchNorm into the convolutions
    return float(twin.val(data=str(data), split="val", **SETTINGS).box.map)


def copy_of(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def prune(model: nn.Module, data: Path, budget: str) -> niwaki.Result:
    """The smaller detector. Its head keeps what it puts out: four sides × 16 bins, and the classes,
    at every scale.
    """
    from PIL import Image

    files = sorted((data.parent / "images/train").iterdir())[:64]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return niwaki.prune(model.eval(), images[:2], budget, calibration=[images], scope="local")


def follow(model: nn.Module) -> None:
    """A size that only ultralytics' exporter reads: half of what a split block's first convolution
    puts out.
    """
    for part in model.modules():
        if hasattr(part, "forward_split") and hasattr(part, "c"):
            part.c = part.cv1.conv.out_channels // 2


def measured(folder: Path, epochs: int, recovery: int, budget: str) -> dict[str, Any]:
    """All of it."""
    import ultralytics
    from ultralytics import YOLO

    os.environ.setdefault("YOLO_OFFLINE", "True")
    data = make_data(folder)
    yolo = small_yolo(folder)
    train = {
        **SETTINGS,
        "data": str(data),
        "project": str(folder),
        "exist_ok": True,
        "seed": 0,
        "val": False,
    }
    yolo.train(epochs=epochs, name="first", optimizer="AdamW", lr0=2e-3, **train)
    yolo = YOLO(folder / "first/weights/last.pt")
    before = average_precision(yolo, data)
    result = prune(yolo.model.float(), data, budget)
    counts = (result.record.before, result.record.after)
    smaller = YOLO(folder / "first/weights/last.pt")
    smaller.model = result.model
    follow(result.model)
    after = average_precision(smaller, data)
    smaller.train(
        trainer=own_trainer(result.model), epochs=recovery, name="second", optimizer="AdamW",
        lr0=1e-3, **train,
    )  # fmt: skip
    recovered = YOLO(folder / "second/weights/last.pt")
    told = {
        "budget": budget,
        "epochs": [epochs, recovery],
        "params": [counts[0].params, counts[1].params],
        "macs": [counts[0].macs, counts[1].macs],
        "map": [before, after, average_precision(recovered, data)],
        "left_whole": len(result.left_whole),
        "notes": list(result.record.notes)[:2],
        "versions": {"ultralytics": ultralytics.__version__, "torch": torch.__version__},
    }
    exported = recovered.export(format="onnx", imgsz=SIDE, simplify=False, dynamic=False)
    told["onnx_bytes"] = Path(exported).stat().st_size
    return told


def as_markdown(record: dict[str, Any]) -> str:
    """The table of the page."""
    params, macs, scores = record["params"], record["macs"], record["map"]
    first, later = record["epochs"]
    rows = (
        (f"trained, {first} epochs", params[0], macs[0], scores[0]),
        (f"pruned, {record['budget']}", params[1], macs[1], scores[1]),
        (f"and trained on, {later} epochs", params[1], macs[1], scores[2]),
    )
    return as_table(
        ["", "parameters", "MACs at 96 pixels", "mAP 50-95"],
        [[how, f"{size:,}", f"{cost:,}", f"{score:.3f}"] for how, size, cost, score in rows],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--recovery", type=int, default=20)
    parser.add_argument("--budget", default="macs=0.5")
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the guide's table, run nothing")
    asked = parser.parse_args()
    if asked.page:
        record = json.loads(asked.out.read_text(encoding="utf-8"))
        write_between(PAGE, START, END, as_markdown(record))
        return
    with tempfile.TemporaryDirectory() as folder:
        record = measured(Path(folder), asked.epochs, asked.recovery, asked.budget)
    print(as_markdown(record))
    print(json.dumps(record))
    asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
