"""The whole pipeline from the shell: train with a penalty, prune by the scales, fine-tune; and what
is said of bad input.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import within
from needed import needs

import niwaki
from niwaki.cli.app import main

needs("accelerate", "sklearn")
pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")

Run = Callable[..., tuple[int, str, str]]
SHORT = (
    "--data",
    "digits",
    "--epochs",
    2,
    "--limit",
    300,
    "--augment",
    "pad=1,flip=false",
    "--tracker",
    "none",
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `niwaki …` in this process: exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["niwaki", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        streams = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), streams.out, " ".join(streams.err.split())

    return call


def test_train_prune_finetune(run: Run, tmp_path: Path) -> None:
    short = (
        "--data",
        "digits",
        "--epochs",
        3,
        "--augment",
        "pad=1,flip=false",
        "--tracker",
        "none",
    )
    trained, pruned, tuned = tmp_path / "trained", tmp_path / "pruned", tmp_path / "tuned"
    code, text, err = run(
        "train", "digits-cnn", *short, "--sparsity", "rni:reg=1e-2,b=1", "--out", trained
    )
    assert code == 0, err
    assert "accuracy" in text
    assert {
        "last.safetensors",
        "best.safetensors",
        "history.json",
        "model.safetensors",
        "record.json",
    } == {path.name for path in trained.iterdir()}
    history = json.loads((trained / "history.json").read_text())
    assert history["epochs"][0]["penalty"] > 0
    model = niwaki.models.build("digits-cnn")
    niwaki.load_weights(model, trained / "model.safetensors")
    assert (
        0 < within.tensor(model, "bn1.weight").min() < within.tensor(model, "bn1.weight").max() < 1
    )  # sigmoid(γ), folded
    assert not within.tensor(model, "bn1.bias").any()

    weights = ("--weights", trained / "model.safetensors", "--data", "digits")
    scale = (
        "--criterion",
        "bn-scale",
        "--scope",
        f"global:min_units={3}",
        "--compensation",
        "none",
        "--skip",
        "fc1",
    )
    code, text, err = run("prune", "digits-cnn", *weights, *scale, "--ratio", 0.7, "--out", pruned)
    assert code == 0, err
    plan = niwaki.load(pruned)
    assert (
        min(
            within.size(plan, "conv1.out_channels"),
            within.size(plan, "conv2.out_channels"),
            within.size(plan, "conv3.out_channels"),
        )
        >= 3
    )
    assert (
        within.size(plan, "conv1.out_channels")
        + within.size(plan, "conv2.out_channels")
        + within.size(plan, "conv3.out_channels")
        == 48
    )

    teacher = (
        "--teacher",
        trained / "model.safetensors",
        "--distil",
        "weight=0.3,feature_weight=0.1",
    )
    code, text, err = run(
        "finetune", pruned, *short, *teacher, "--lr", 0.05, "--set", "ema=0.5", "--out", tuned
    )
    assert code == 0, err
    record = json.loads((tuned / "record.json").read_text())
    assert record["settings"]["fine_tuning"]["ema"] == 0.5
    assert (
        record["settings"]["accuracy_untuned"]
        == json.loads((pruned / "record.json").read_text())["after"]["accuracy"]
    )
    assert within.size(niwaki.load(tuned), "conv1.out_channels") == within.size(
        plan, "conv1.out_channels"
    )
    assert record["after"]["accuracy"] > 0.3


def test_a_run_is_gone_on_with(run: Run, tmp_path: Path) -> None:
    words = ("train", "digits-cnn", *SHORT, "--out", tmp_path / "run")
    assert run(*words)[0] == 0
    first = niwaki.read_weights(tmp_path / "run" / "model.safetensors")
    code, _, err = run(*words)
    assert code == 1
    assert "holds a training run; resume it, or name another folder" in err
    assert run(*words, "--resume")[0] == 0
    again = niwaki.read_weights(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    code, _, err = run(*words, "--resume", "--lr", 0.3)
    assert code == 1
    assert "lr was 0.1 and is now 0.3" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("train", "lenet-300-100", "--data", "digits", "--sparsity", "rni"),
            "has no BatchNorm with a scale",
        ),
        (
            ("train", "digits-cnn", "--data", "digits", "--sparsity", "rni:reg=-1"),
            "reg must be a number of at least 0",
        ),
        (
            ("train", "digits-cnn", "--data", "digits", "--sparsity", "l1:reg=nan"),
            "reg must be a number of at least 0",
        ),
        (("train", "digits-cnn", "--data", "digits", "--sparsity", "rmi"), "did you mean 'rni'"),
        (("train", "digits-cnn", "--data", "digits", "--set", "emma=0.9"), "did you mean 'ema'"),
        (("train", "digits-cnn", "--data", "digits", "--set", "epochs=9"), "write --epochs 9"),
        (
            ("train", "digits-cnn", "--data", "digits", "--tracker", "tensorbord"),
            "did you mean 'tensorboard'",
        ),
        (("train", "digits-cnn", "--data", "digits", "--augment", "pad=9"), "use a smaller one"),
        (("finetune", "nowhere", "--data", "digits"), "is no folder that niwaki prune wrote"),
    ],
)
def test_bad_words_are_one_sentence(
    run: Run, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    code, out, err = run(*words, "--out", tmp_path / "out")
    assert code == 1
    assert out == ""
    assert complaint in err
    assert "Traceback" not in err


def test_a_missing_library_names_its_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    code, _, err = run("train", "digits-cnn", *SHORT, "--out", tmp_path / "out")
    assert code == 1
    assert "pip install 'niwaki[train]'" in err
