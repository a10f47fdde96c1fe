"""One row of a table with one seed: pruned, fine-tuned, measured on the whole test set, recorded.

A row that has a record is not run again, and a fine-tuning that was cut off goes on where it
stopped. Nothing is chosen: the last epoch is kept, since the checkpoint was trained on all training
images, and a validation split of them would favour whatever stays nearest to it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from niwaki import models
from niwaki.core.provenance import hardware, versions
from niwaki.core.records import write_text_atomic
from niwaki.data import Dataset, Split
from niwaki.io.weights import load_weights
from niwaki.measure import count_params, evaluate
from niwaki.measure.macs import count_macs
from niwaki.methods.base.evidence import Calibration
from niwaki.papers.images import some
from niwaki.papers.recipe import Places
from niwaki.pruning._prune import prune
from niwaki.pruning.result import Result
from niwaki.pruning.selection import Selection
from niwaki.training import (
    Augment,
    Distillation,
    Feed,
    FeedSettings,
    History,
    RunFolder,
    TrainSettings,
    fit,
)

BATCH, EVALUATION_BATCH, WEIGHT_DECAY = 128, 500, 5e-4
DISTIL, TEMPERATURE = 0.5, 4.0
KEPT = "the last epoch is kept; no image was left to choose one by, as the checkpoint saw all"


@dataclass(frozen=True)
class Cost:
    """What a row may take.

    Attributes:
        lr: the highest of a one-cycle.
        images: at most so many to fine-tune on; None: all.
    """

    epochs: int
    lr: float
    images: int | None = None

    def __str__(self) -> str:
        images = "all" if self.images is None else f"{self.images:,}"
        return f"{self.epochs} epochs of fine-tuning on {images} training images"


@dataclass(frozen=True, eq=False)
class Setup:
    """What a row is run with.

    Attributes:
        work: the folder for what is trained.
    """

    cost: Cost
    dataset: Dataset
    places: Places
    work: Path

    def training(self) -> Split:
        """The images that are trained on, on their device."""
        train = some(self.dataset.split("train"), self.cost.images)
        return train.to(self.places.device)

    def test(self) -> Split:
        """The images that are tested on, on their device."""
        return self.dataset.split("test").to(self.places.device)


@dataclass(frozen=True)
class BaselineRun:
    """What a row came to; accuracies in percent on all test images.

    Attributes:
        base, untuned, test: of the checkpoint, of what was pruned, and of what was fine-tuned.
        params, macs: before and after.
        kept: layer → filters that stayed.
        curve: epoch by epoch: training loss and training accuracy (a share).
        counted: share that went of what the table counts, where that is not all parameters.
    """

    experiment: str
    row: str
    budget: str
    seed: int
    base: float
    untuned: float
    test: float
    test_images: int
    params: list[int]
    macs: list[int]
    kept: dict[str, int]
    settings: dict[str, Any]
    curve: list[list[float]]
    seconds: float
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    hardware: dict[str, Any] = field(default_factory=hardware)
    counted: float | None = None
    schema: int = 1

    @property
    def gone(self) -> float:
        """Share that went of what the table counts: all parameters, where nothing else is said."""
        if self.counted is not None:
            return self.counted
        return 1 - self.params[1] / self.params[0]


@dataclass(frozen=True, eq=False)
class Pruned:
    """A smaller network before it is fine-tuned.

    Attributes:
        base, untuned: accuracies of the network that it comes from, and its own; in percent.
        params, macs: of the network that it comes from.
        kept: layer → filters that stayed.
        counted: share that went of what the table counts, where that is not all parameters.
    """

    model: nn.Module
    base: float
    untuned: float
    params: int
    macs: int
    kept: dict[str, int]
    counted: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of tables.toml with one seed.

    Attributes:
        kept: which epoch is kept, in words.
    """

    experiment: str
    budget: str
    seed: int
    table: dict[str, Any]
    entry: dict[str, Any]
    kept: str = KEPT

    @property
    def name(self) -> str:
        """The record's file name without its suffix."""
        words = f"{self.experiment}-{self.entry['name']}-{self.budget}-seed{self.seed}".lower()
        return "-".join("".join(c if c.isalnum() else " " for c in words).split())

    def run(self, setup: Setup) -> BaselineRun:
        """The row's numbers: from its record, or made now."""
        path = setup.work / "records" / f"{self.name}.json"
        if path.is_file() and (known := read(path)).settings == self._asked(setup.cost):
            return known
        model = self._original(setup)
        pruned = self._pruned(model, setup)
        history = self._tuned(model, pruned.model, setup)
        done = self._record(pruned, history, setup)
        write(done, path)
        return done

    def _asked(self, cost: Cost) -> dict[str, Any]:
        """All that the numbers depend on, as JSON holds it."""
        asked = {**dataclasses.asdict(cost), "row": self.entry, "batch": BATCH}
        asked |= {"weight_decay": WEIGHT_DECAY, "distil": DISTIL, "temperature": TEMPERATURE}
        asked |= {key: self.table[key] for key in ("model", "checkpoint") if key in self.table}
        plain: dict[str, Any] = json.loads(json.dumps(asked))
        return plain

    def _original(self, setup: Setup) -> nn.Module:
        """The unpruned network; from a checkpoint, which costs nothing."""
        model = models.build(self.table["model"], classes=setup.dataset.classes)
        load_weights(model, setup.places.checkpoint(self.table["checkpoint"]))
        return model.to(setup.places.device).eval()

    def _pruned(self, model: nn.Module, setup: Setup) -> Pruned:
        entry, test = self.entry, setup.test()
        selection = Selection(
            entry.get("scope", "local"),
            only=tuple(self.table["only"]),
            skip=tuple(entry.get("skip", ())),
            rounding=self.table.get("rounding", "floor"),
            shares=entry.get("shares", {}),
        )
        result = prune(
            model,
            models.example_inputs(model),
            criterion=entry["criterion"],
            budget=entry.get("budget", 0),
            compensation=entry.get("compensation", "none"),
            calibration=self._seen(setup),
            selection=selection,
            evaluate=partial(test.batches, EVALUATION_BATCH, limit=setup.places.limit),
            seed=self.seed,
        )
        before, after = result.record.before, result.record.after
        assert before.accuracy is not None
        assert after.accuracy is not None
        return Pruned(
            result.model,
            base=_percent(before.accuracy),
            untuned=_percent(after.accuracy),
            params=before.params,
            macs=before.macs,
            kept={name: len(entry.units) for name, entry in result.plan.items()},
            counted=self._counted(result),
        )

    def _seen(self, setup: Setup) -> Calibration | None:
        """Training images with their class numbers, for what looks at activations or gradients."""
        if "calibration" not in self.entry:
            return None
        few = some(setup.dataset.split("train"), self.entry["calibration"])
        few = few.to(setup.places.device)
        return Calibration.labelled(lambda: few.batches(BATCH))

    def _tuned(self, teacher: nn.Module, smaller: nn.Module, setup: Setup) -> History:
        """Train in place, with the unpruned network as a teacher; the last epoch's weights stay."""
        settings = TrainSettings(
            setup.cost.epochs,
            setup.cost.lr,
            weight_decay=WEIGHT_DECAY,
            schedule="one-cycle",
            seed=self.seed,
            channels_last=True,
        )
        described = {"row": self.name}
        folder = RunFolder(setup.work / self.name, resume=True, trackers=(), describes=described)
        return fit(
            smaller,
            Feed(setup.training(), FeedSettings(BATCH, Augment(border="zero"), seed=self.seed)),
            settings=settings,
            distillation=Distillation(copy.deepcopy(teacher), DISTIL, TEMPERATURE),
            folder=folder,
            progress=False,
        )

    def _record(self, pruned: Pruned, history: History, setup: Setup) -> BaselineRun:
        test, samples = self._accuracy(pruned.model, setup)
        one = models.example_inputs(pruned.model, batch=1)
        stopped = [history.stopped] if history.stopped else []
        return BaselineRun(
            self.experiment,
            self.entry["name"],
            self.budget,
            self.seed,
            base=pruned.base,
            untuned=pruned.untuned,
            test=test,
            test_images=samples,
            params=[pruned.params, count_params(pruned.model)],
            macs=[pruned.macs, count_macs(pruned.model, one)],
            kept=pruned.kept,
            settings=self._asked(setup.cost),
            curve=[[e.loss, e.accuracy] for e in history.epochs],
            seconds=round(history.seconds, 1),
            notes=[self.kept, *pruned.notes, *history.notes, *stopped],
            counted=pruned.counted,
        )

    def _accuracy(self, model: nn.Module, setup: Setup) -> tuple[float, int]:
        """In percent on the test images, and of how many."""
        batches = setup.test().batches(EVALUATION_BATCH, limit=setup.places.limit)
        found = evaluate(model, batches)
        return _percent(found.accuracy), found.samples

    def _counted(self, result: Result) -> float | None:
        """Share of one tensor that went, where the table counts that alone."""
        if "counted" not in self.table:
            return None
        name = self.table["counted"]
        before = result.cut.graph.state[name].numel()
        return round(1 - result.model.get_parameter(name).numel() / before, 6)


def _percent(share: float) -> float:
    return round(100 * share, 4)


def write(run: BaselineRun, path: Path) -> None:
    """A record, whole or not at all: one line a field."""
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in dataclasses.asdict(run).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read(path: Any) -> BaselineRun:
    """A record back from its file."""
    return BaselineRun(**json.loads(path.read_text(encoding="utf-8")))


def committed() -> list[BaselineRun]:
    """The records that come with niwaki, by name."""
    folder = resources.files("niwaki.papers.baselines").joinpath("records")
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if path.name.endswith(".json"))
    return [read(path) for path in sorted(files, key=lambda path: path.name)]
