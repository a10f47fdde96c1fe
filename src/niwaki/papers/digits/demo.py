"""Train a small network on the digits, prune it by several criteria and repairs at several ratios,
tune a little, compare.

Accuracy is measured on the test split; the tuned epoch and the network that is kept are chosen on
the validation split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from niwaki import data, models
from niwaki import io as checkpoint
from niwaki.core.records import Measurement, staged_folder
from niwaki.data import Dataset, Split
from niwaki.measure import evaluate, measure_latency
from niwaki.pruning._prune import prune
from niwaki.pruning.result import Result
from niwaki.report import FigurePoint, accuracy_size_figure
from niwaki.training import TrainSettings, fit

MODEL, BATCH = "digits-cnn", 64
PAIRS = (
    ("random", "none"),
    ("l1", "none"),
    ("l1", "merge"),
    ("l1", "moments"),
    ("l1", "reconstruct"),
    ("reconstruct", "reconstruct"),
)
RATIOS = (0.3, 0.5, 0.7, 0.85)
TRAINING = TrainSettings(epochs=30, lr=0.05)
TUNING = TrainSettings(epochs=5, lr=0.02, clip_norm=1.0)
CALIBRATION = 256  # unlabelled training images, for the repairs that learn from some
COLUMNS = ("channels removed", "none", *(f"{ratio:.0%}" for ratio in RATIOS))
Say = Callable[[str], None]


@dataclass(frozen=True)
class Best:
    """The smallest network that, tuned, is within a point of the original on the validation
    split.
    """

    label: str
    before: Measurement
    after: Measurement


@dataclass(frozen=True)
class DemoOutcome:
    """The table's rows, and where the picture and the pruned network lie."""

    rows: tuple[tuple[str, ...], ...]
    best: Best
    picture: Path
    artefact: Path


@dataclass(frozen=True)
class _Run:
    """One pruned network: its test accuracy as it came out of pruning, and what a short fine-tuning
    made of it.
    """

    pair: tuple[str, str]
    ratio: float
    untuned: float
    validation: float
    result: Result

    @property
    def tuned(self) -> float:
        accuracy = self.result.record.after.accuracy
        assert accuracy is not None
        return accuracy


def run_demo(out: Path, *, seed: int = 0, overwrite: bool = False, say: Say = print) -> DemoOutcome:
    """Run the whole demo and write picture and network to `out`, which appears complete or not at
    all.

    Raises:
        OutputError: `out` exists and `overwrite` is not set.
        MissingExtraError: scikit-learn or matplotlib is not installed.
    """
    dataset = data.load("digits")
    with staged_folder(out, overwrite=overwrite) as stage:
        model = _trained(dataset, seed, say)
        runs = [
            _pruned(model, dataset, pair, ratio, seed)
            for pair in PAIRS
            for ratio in _announced(pair, say)
        ]
        before = runs[0].result.record.before
        best = _best(runs, evaluate(model, dataset.split("validation").batches(BATCH)).accuracy)
        _draw(runs, before, stage / "accuracy.png")
        checkpoint.save(
            best.result, stage / "pruned", model=MODEL
        )  # its weights and its record are the tuned ones
        rows = _rows(model, dataset, before, runs)
    after = best.result.record.after
    label = f"{best.pair[0]} + {best.pair[1]}, {best.ratio:.0%} of the channels removed, fine-tuned"
    return DemoOutcome(rows, Best(label, before, after), out / "accuracy.png", out / "pruned")


def _announced(pair: tuple[str, str], say: Say) -> Iterable[float]:
    say(f"pruning by {pair[0]}, repaired by {pair[1]}")
    return RATIOS


def _trained(dataset: Dataset, seed: int, say: Say) -> nn.Module:
    torch.manual_seed(seed)
    channels, size, _ = dataset.input_shape
    model = models.build(MODEL, classes=dataset.classes, in_channels=channels, image_size=size)
    say(f"training {MODEL} on {len(dataset.split('train')):,} digits")
    _fit(model, dataset, dataclasses.replace(TRAINING, seed=seed), progress=True)
    return model.eval()


def _fit(model: nn.Module, dataset: Dataset, settings: TrainSettings, *, progress: bool) -> None:
    train, validation = dataset.split("train"), dataset.split("validation")
    generator = torch.Generator().manual_seed(settings.seed)

    def epoch(number: int) -> list[tuple[Tensor, Tensor]]:
        return list(train.batches(BATCH, shuffle=True, generator=generator))

    fit(
        model,
        epoch,
        settings=settings,
        validate=lambda trained: evaluate(trained, validation.batches(BATCH)),
        progress=progress,
    )


def _pruned(
    model: nn.Module, dataset: Dataset, pair: tuple[str, str], ratio: float, seed: int
) -> _Run:
    test: Split = dataset.split("test")
    inputs = next(iter(test.batches(BATCH)))[0]
    criterion, compensation = pair
    result = (
        prune(
            model,
            inputs,
            criterion=criterion,
            budget=ratio,
            compensation=compensation,
            calibration=_calibration(dataset, seed),
            evaluate=partial(test.batches, BATCH),
            seed=seed,
        )
        .measured()
        .with_settings(data="digits")
    )
    untuned = result.record.after.accuracy
    assert untuned is not None
    _fit(result.model, dataset, dataclasses.replace(TUNING, seed=seed), progress=False)
    tuned = evaluate(result.model.eval(), test.batches(BATCH))
    after = dataclasses.replace(result.record.after, accuracy=tuned.accuracy, loss=tuned.loss)
    settings = {
        **result.record.settings,
        "fine_tuning": dataclasses.asdict(TUNING),
        "accuracy_untuned": untuned,
    }
    record = dataclasses.replace(result.record, after=after, settings=settings)
    validation = evaluate(result.model, dataset.split("validation").batches(BATCH)).accuracy
    return _Run(pair, ratio, untuned, validation, dataclasses.replace(result, record=record))


def _calibration(dataset: Dataset, seed: int) -> list[Tensor]:
    """Training images without their labels."""
    train = dataset.split("train")
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:CALIBRATION]
    return [images for images, _ in train.take(chosen).batches(BATCH)]


def _best(runs: list[_Run], original: float) -> _Run:
    """The smallest network within a point of the original on the validation split; the test split
    chooses nothing.
    """
    close = [run for run in runs if run.validation >= original - 0.01]
    if not close:
        return max(runs, key=lambda run: run.validation)
    return min(close, key=lambda run: (run.result.record.after.params, -run.validation))


def _draw(runs: list[_Run], before: Measurement, path: Path) -> None:
    points = [
        FigurePoint(
            series=" + ".join(run.pair),
            size=run.result.record.after.params / before.params,
            accuracy=run.untuned,
            tuned=run.tuned,
        )
        for run in runs
    ]
    accuracy_size_figure(
        points, path, baseline=before.accuracy, title="digits-cnn: accuracy against size"
    )


def _rows(
    model: nn.Module, dataset: Dataset, before: Measurement, runs: list[_Run]
) -> tuple[tuple[str, ...], ...]:
    """A column a ratio: sizes, which all ways of pruning share, and the accuracies of each way,
    before and after tuning.
    """
    ways = {pair: [run for run in runs if run.pair == pair] for pair in PAIRS}
    results = [run.result for run in ways[PAIRS[0]]]
    measured, networks = (
        [before, *(result.record.after for result in results)],
        [model, *(result.model for result in results)],
    )
    # all in turns in one go, so that they can be compared
    latencies = measure_latency(
        networks, next(iter(dataset.split("test").batches(BATCH)))[0], seconds=5.0
    )
    sizes = (
        ("parameters", *(f"{size.params:,}" for size in measured)),
        ("multiply-adds", *(f"{size.macs / 1e6:.2f} M" for size in measured)),
        (f"ms, batch of {BATCH}", *(f"{latency.median_ms:.2f}" for latency in latencies)),
        ("kB of weights", *(f"{_kilobytes(network):,.0f}" for network in networks)),
    )
    untuned = (
        (" + ".join(pair), "", *(f"{run.untuned:.2%}" for run in made))
        for pair, made in ways.items()
    )
    tuned = (
        (" + ".join(pair), "", *(f"{run.tuned:.2%}" for run in made)) for pair, made in ways.items()
    )
    first = f"{before.accuracy:.2%}"
    return (
        *sizes,
        ("",),
        ("ACCURACY, NOT TRAINED AGAIN", first),
        *untuned,
        ("",),
        (f"ACCURACY, {TUNING.epochs} EPOCHS LATER", first),
        *tuned,
    )


def _kilobytes(model: nn.Module) -> float:
    """Size of the weights file, in units of 1000 bytes."""
    return len(to_bytes(model.state_dict())) / 1000
