"""A run that was killed goes on exactly where it was; a run of another kind is refused by name."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import within
from needed import needs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from niwaki.core.errors import CheckpointError, OutputError, SettingError, UnknownNameError
from niwaki.data import HeldSplit, Normalization
from niwaki.measure import Evaluation, evaluate
from niwaki.training import (
    BEST,
    HISTORY,
    LAST,
    Augment,
    Feed,
    FeedSettings,
    RunFolder,
    TrainSettings,
    fit,
)

needs("accelerate")
pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS: dict[str, Any] = {"epochs": 4, "lr": 0.05, "ema": 0.9, "seed": 3, "label_smoothing": 0.1}


def make_split(count: int = 96) -> HeldSplit:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), labels] += 50
    return HeldSplit(images, labels, Normalization((0.4,) * 3, (0.3,) * 3))


def make_model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(6 * 36, 3),
        )


def make_feed(seed: int = 0) -> Feed:
    return Feed(make_split(), FeedSettings(batch_size=10, augment=Augment(pad=2), seed=seed))


def validate(model: nn.Module) -> Evaluation:
    return evaluate(model, make_split(40).batches(20))


def run(
    folder: Path | None, *, resume: bool = False, every: float = 0, **settings: Any
) -> tuple[nn.Module, Any]:
    model = make_model()
    kept = RunFolder(folder, resume=resume, every=every, trackers=()) if folder else None
    given = TrainSettings(**{**SETTINGS, **settings})
    return model, fit(
        model, make_feed(), settings=given, validate=validate, folder=kept, progress=False
    )


def same(left: nn.Module, right: nn.Module) -> bool:
    theirs = right.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in left.state_dict().items())


class Stop(BaseException):
    """What a test throws in the middle of a step."""


@pytest.mark.parametrize("kind", ["feed", "function"])
def test_interrupted_after_any_step_the_weights_end_the_same(tmp_path: Path, kind: str) -> None:
    def shuffled(epoch: int) -> list[tuple[Tensor, Tensor]]:
        """An order from torch's own generator."""
        split = make_split()
        return [
            (split.normalization(split.pixels(part)), split.labels[part])
            for part in torch.randperm(96).split(10)
        ]

    batches = make_feed() if kind == "feed" else shuffled
    settings = TrainSettings(**SETTINGS, accumulate=3)

    def go(folder: Path, resume: bool, stop_after: int | None) -> tuple[nn.Module, Any]:
        model, done = make_model(), 0

        def count(_: nn.Module) -> None:
            nonlocal done
            done += 1
            if stop_after is not None and done > stop_after:
                raise Stop

        kept = RunFolder(folder, resume=resume, every=0, trackers=())
        return model, fit(
            model,
            batches,
            settings=settings,
            validate=validate,
            folder=kept,
            after_step=count,
            progress=False,
        )

    whole, history = go(tmp_path / "whole", False, None)
    told = [(e.number, e.loss, e.accuracy, e.validation) for e in history.epochs]
    for steps in (1, 9, 10, 11, 25):
        folder = tmp_path / f"cut-{steps}"
        with pytest.raises(Stop):
            go(folder, False, steps)
        resumed, again = go(folder, True, None)
        assert same(whole, resumed), steps
        assert [(e.number, e.loss, e.accuracy, e.validation) for e in again.epochs] == told, steps
        assert again.best_epoch == history.best_epoch, steps


def resume_in_another_process(folder: Path) -> None:
    torch.set_num_threads(1)
    run(folder, resume=True, every=0.02, epochs=30)


def test_killed_at_ten_random_moments_the_weights_are_bit_equal(tmp_path: Path) -> None:
    whole, history = run(None, epochs=30)
    context = forked.context()
    chance = torch.Generator().manual_seed(11)
    last = tmp_path / "killed" / LAST
    seen = -1
    for _ in range(10):
        child = context.Process(target=resume_in_another_process, args=(tmp_path / "killed",))
        child.start()
        while child.is_alive() and (not last.exists() or last.stat().st_mtime_ns == seen):
            time.sleep(
                0.002
            )  # it is to have saved something new, so that the kills fall all over the run
        time.sleep(0.03 * torch.rand((), generator=chance).item())
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, (
            "the run ended before it could be killed ten times"
        )
        seen = last.stat().st_mtime_ns
    resumed, again = run(tmp_path / "killed", resume=True, every=0.02, epochs=30)
    assert same(whole, resumed)
    assert [epoch.loss for epoch in again.epochs] == [epoch.loss for epoch in history.epochs]
    assert [path for path in (tmp_path / "killed").iterdir() if path.suffix == ".partial"] == []


def test_a_finished_run_is_read_and_not_trained_again(tmp_path: Path) -> None:
    model, history = run(tmp_path)
    before = (tmp_path / LAST).stat().st_mtime_ns
    again, told = run(tmp_path, resume=True)
    assert (tmp_path / LAST).stat().st_mtime_ns == before
    assert same(model, again)
    assert told == history
    assert json.loads((tmp_path / HISTORY).read_text())["best_epoch"] == history.best_epoch
    fresh = make_model()
    fresh.load_state_dict(load_file(tmp_path / BEST))
    assert same(fresh, model)


def test_a_run_does_not_go_into_the_folder_of_a_pruned_network(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(
        OutputError, match="holds a pruned network, whose files a training run would replace"
    ):
        run(tmp_path, epochs=1)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(
        OutputError, match="holds a training run; resume it, or name another folder"
    ):
        run(tmp_path, epochs=1)


def test_resume_with_other_settings_is_refused_and_lists_them(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(
        SettingError, match=r"epochs was 1 and is now 2; lr was 0.05 and is now 0.1;"
    ) as refused:
        run(tmp_path, resume=True, epochs=2, lr=0.1)
    assert "momentum" not in str(refused.value)


def test_resume_with_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    other = make_model()
    other[0] = nn.Conv2d(3, 6, 3, bias=False)
    other[5] = nn.Linear(6 * 36, 4)
    kept = RunFolder(tmp_path, resume=True, every=0, trackers=())
    settings = TrainSettings(**{**SETTINGS, "epochs": 1})
    with pytest.raises(
        CheckpointError,
        match=r"of another model: 0.bias is not in this model; 5.weight is \(3, 216\) there",
    ):
        fit(other, make_feed(), settings=settings, folder=kept)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    header = {"schema": 99, "versions": {"niwaki": "7.0"}, "asked": {}, "progress": {}}
    save_file({"sums": torch.zeros(4)}, tmp_path / LAST, {"niwaki": json.dumps(header)})
    with pytest.raises(
        CheckpointError, match=r"written by niwaki 7\.0 in format 99; niwaki .* reads format 1"
    ):
        run(tmp_path, resume=True, epochs=1)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    run(tmp_path, epochs=1)
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CheckpointError, match="is damaged, or no checkpoint"):
        run(tmp_path, resume=True, epochs=1)


def test_a_disk_that_fills_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(None)
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"last.safetensors: No space left on device"):
        run(tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST]
    resumed, _ = run(tmp_path, resume=True)
    assert same(whole, resumed)


def test_a_diverged_run_is_not_saved_over_the_good_one(tmp_path: Path) -> None:
    steps = itertools.count(1)

    def poison(model: nn.Module) -> None:
        if next(steps) == 25:
            within.tensor(model, "0.weight").data.fill_(float("nan"))

    model = make_model()
    kept = RunFolder(tmp_path, every=0, trackers=())
    history = fit(
        model,
        make_feed(),
        settings=TrainSettings(**SETTINGS),
        validate=validate,
        folder=kept,
        after_step=poison,
        progress=False,
    )
    assert history.stopped is not None
    assert "stopped in epoch 3" in history.stopped
    saved = load_file(tmp_path / LAST)
    assert all(
        bool(value.isfinite().all())
        for name, value in saved.items()
        if name.startswith(("model/", "best/"))
    )
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_trackers_write_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    settings = TrainSettings(**{**SETTINGS, "epochs": 1})
    fit(
        make_model(),
        make_feed(),
        settings=settings,
        folder=RunFolder(tmp_path / "a"),
        progress=False,
    )
    events = list((tmp_path / "a").rglob("events.out.tfevents*"))
    assert events
    assert max(path.stat().st_size for path in events) > 100
    with pytest.raises(UnknownNameError, match="did you mean 'tensorboard'"):
        fit(
            make_model(),
            make_feed(),
            settings=settings,
            folder=RunFolder(tmp_path / "b", trackers=("tensorbord",)),
        )


def test_other_describing_words_are_a_difference_too(tmp_path: Path) -> None:
    settings = TrainSettings(**{**SETTINGS, "epochs": 1})
    kept = RunFolder(tmp_path, trackers=(), describes={"model": "vgg16"})
    fit(make_model(), make_feed(), settings=settings, folder=kept, progress=False)
    kept = RunFolder(tmp_path, resume=True, trackers=(), describes={"model": "resnet56"})
    with pytest.raises(SettingError, match='model was "vgg16" and is now "resnet56"'):
        fit(make_model(), make_feed(1), settings=settings, folder=kept, progress=False)
