"""The command line: what it writes, what it prints where, and what it says of bad input."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import niwaki
from niwaki.cli.app import main
from niwaki.cli.setup import Words, set_up

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quick_latency: None
) -> Run:
    """Call `niwaki …` in this process: exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["niwaki", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()  # typer ends every command with an exit, the good ones too
        streams = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), streams.out, streams.err

    return call


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = niwaki.models.build("digits-cnn")
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), str(path))
    return path


def test_prune_writes_a_folder_that_eval_reads(run: Run, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    words = (
        "prune",
        "digits-cnn",
        "--weights",
        weights,
        "--data",
        "digits",
        "--criterion",
        "l1",
        "--ratio",
        0.5,
    )
    code, text, err = run(*words, "--out", out)
    assert code == 0, err
    assert sorted(path.name for path in out.iterdir()) == [
        ".niwaki",
        "README.md",
        "load_without_niwaki.py",
        "manifest.json",
        "model.safetensors",
        "plan.json",
        "record.json",
    ]
    assert "parameters" in text
    assert "accuracy" in text
    record = json.loads((out / "record.json").read_text())
    for side in ("before", "after"):
        assert {"accuracy", "loss", "params", "macs", "latency_ms", "bytes"} <= record[side].keys()
        assert 0 <= record[side]["accuracy"] <= 1
    assert record["after"]["params"] < 0.3 * record["before"]["params"]
    assert {"settings", "versions", "hardware", "seed", "seconds"} <= record.keys()

    code, text, err = run("eval", out, "--data", "digits", "--json")
    assert code == 0, err
    again = json.loads(text)
    assert again["after"]["accuracy"] == record["after"]["accuracy"]
    assert again["after"]["params"] == record["after"]["params"]
    assert again["before"] == record["before"]


def test_json_stands_alone_on_standard_output(run: Run, weights: Path) -> None:
    code, text, err = run("prune", "digits-cnn", "--weights", weights, "--ratio", 0.25, "--json")
    assert code == 0
    assert json.loads(text)["settings"]["budget"] == "channels=0.25"
    assert "proved" in err


def test_the_same_seed_gives_the_same_plan(run: Run, weights: Path, tmp_path: Path) -> None:
    plans = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / str(number)
        run(
            "prune",
            "digits-cnn",
            "--weights",
            weights,
            "--criterion",
            "random",
            "--seed",
            seed,
            "--out",
            out,
        )
        plans.append((out / "plan.json").read_text())
    assert plans[0] == plans[1] != plans[2]


def test_only_skip_scope_and_settings(run: Run, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    words = (
        "--only",
        "conv*",
        "--skip",
        "conv2",
        "--scope",
        "global:min_units=3",
        "--compensation",
        "merge:threshold=0.2",
    )
    code, _, err = run("prune", "digits-cnn", "--weights", weights, *words, "--out", out)
    assert code == 0, err
    assert list(json.loads((out / "plan.json").read_text())["steps"][0]) == ["conv1", "conv3"]


def test_calibration_inputs_are_drawn_from_the_training_split_by_the_seed() -> None:
    drawn = [
        set_up(
            Words("digits-cnn", data="digits", seed=seed, calibration=50, batch_size=20)
        ).calibration
        for seed in (1, 1, 2)
    ]
    batches = [list(calibration.batches()) for calibration in drawn if calibration is not None]
    assert [[len(inputs) for inputs, _ in found] for found in batches] == [[20, 20, 10]] * 3
    first, again, other = (
        torch.cat([inputs for inputs, _ in found if isinstance(inputs, Tensor)])
        for found in batches
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    train = torch.cat(
        [images for images, _ in niwaki.data.load("digits").split("train").batches(200)]
    )
    assert all(bool((train == image).flatten(1).all(1).any()) for image in first)
    assert all(labels is not None for _, labels in batches[0])


def test_a_dry_run_says_what_would_go_and_writes_nothing(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pruned"
    code, text, err = run(
        "prune",
        "digits-cnn",
        "--weights",
        weights,
        "--budget",
        "macs=0.5",
        "--dry-run",
        "--out",
        out,
    )
    assert code == 0, err
    assert "score lost" in text
    assert "macs: 1,821,952 →" in text
    assert not out.exists()


def test_a_pruned_folder_is_pruned_again(run: Run, weights: Path, tmp_path: Path) -> None:
    words = ("--criterion", "l1", "--ratio", 0.25)
    run("prune", "digits-cnn", "--weights", weights, *words, "--out", tmp_path / "once")
    code, _, err = run("prune", tmp_path / "once", *words, "--out", tmp_path / "twice")
    assert code == 0, err
    plan = json.loads((tmp_path / "twice" / "plan.json").read_text())
    assert (plan["factory"], len(plan["steps"])) == ("digits-cnn", 2)


def test_eval_says_what_each_layer_costs(run: Run) -> None:
    code, text, err = run("eval", "lenet-300-100", "--layers")
    assert code == 0, err
    assert "of the time" in text
    assert "235,200" in text  # 784 · 300 multiply-adds


def test_reconstruct_and_refit_on_the_command_line(run: Run, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    words = (
        "prune",
        "digits-cnn",
        "--weights",
        weights,
        "--data",
        "digits",
        "--calibration",
        64,
        "--recovery",
        "refit",
    )
    code, _, err = run(*words, "--out", out)
    assert code == 0, err
    record = json.loads((out / "record.json").read_text())
    assert (
        record["settings"]["recovery"] == ["refit"] or "Refit" in record["settings"]["recovery"][0]
    )
    assert any("reconstruct, as there are calibration inputs" in note for note in record["notes"])
    assert any("fitted to the original's over 64 inputs" in note for note in record["notes"])
    code, text, err = run("eval", out, "--data", "digits", "--json")
    assert code == 0, err
    assert json.loads(text)["after"]["accuracy"] == record["after"]["accuracy"]


@pytest.mark.parametrize("more", [(), ("--data", "digits", "--accuracy", "--limit", 50)])
def test_sensitivity_draws_and_writes_numbers(
    run: Run, weights: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    picture = tmp_path / "curves.png"
    code, _, err = run(
        "sensitivity",
        "digits-cnn",
        "--weights",
        weights,
        "--ratios",
        "0.25,0.75",
        "--out",
        picture,
        *more,
    )
    assert code == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "curves.json").read_text())
    assert found["measure"] == ("accuracy" if more else "residual")
    assert set(found["groups"]) >= {"conv1", "conv2"}
    if not more:
        assert all(0 <= low <= high for low, high in found["groups"].values())


def test_inspect_lists_groups_and_reasons(run: Run) -> None:
    code, text, _ = run("inspect", "lenet-300-100")
    assert code == 0
    assert "ip1" in text
    assert "model output" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prune", "resnet57"), "'resnet56'"),
        (("prune", "digits-cnn", "--criterion", "l3"), "unknown criterion 'l3'"),
        (("prune", "digits-cnn", "--compensation", "merge:thresold=1"), "'threshold'"),
        (("prune", "digits-cnn", "--compensation", "merge:threshold=high"), "must be float"),
        (("prune", "digits-cnn", "--data", "mnits"), "'mnist'"),
        (("prune", "digits-cnn", "--ratio", 1), "[0, 1)"),
        (("prune", "digits-cnn", "--ratio", -0.1), "[0, 1)"),
        (("prune", "digits-cnn", "--ratio", "nan"), "[0, 1)"),
        (("prune", "digits-cnn", "--ratio", 0.5, "--budget", "params=0.5"), "one of them"),
        (("prune", "digits-cnn", "--budget", "params=0.99999"), "at most"),
        (("prune", "digits-cnn", "--weights", "nowhere.pth"), "nowhere.pth: no such file"),
        (("prune", "digits-cnn", "--only", "layer9*"), "'layer9*'"),
        (("prune", "digits-cnn", "--input-shape", "3x8"), "3,224,224"),
        (("eval", "digits-cnn", "--device", "cuda:99"), "cuda:99"),
        (("reproduce", "neuron-mergin"), "'neuron-merging'"),
        (("reproduce", "neuron-merging", "--only", "lenet"), "'lenet-300-100'"),
        (("prune", "nowhere.nets:build"), "nowhere"),
        (("sensitivity", "digits-cnn", "--out", "x.png", "--ratios", "half"), "0.1,0.5,0.9"),
        (("sensitivity", "digits-cnn", "--out", "x.png", "--ratios", "0.5,1"), "[0, 1)"),
        (
            ("sensitivity", "digits-cnn", "--out", "x.png", "--compensation", "none"),
            "no residual is known",
        ),
        (("sensitivity", "digits-cnn", "--out", "x.png", "--accuracy"), "name one with --data"),
        (("prune", "digits-cnn", "--recovery", "refit"), "pass some as calibration="),
        (("prune", "digits-cnn", "--compensation", "reconstruct"), "pass some as calibration="),
        (
            ("prune", "digits-cnn", "--scope", "local:min_units=999"),
            "nothing can go with at least 999 units left",
        ),
        (
            ("prune", "digits-cnn", "--out", "/proc/nowhere/pruned"),
            "/proc/nowhere/pruned cannot be created",
        ),
        (("prune", "digits-cnn", "--weights", "tests"), "tests is a folder"),
        (("prune", "tests"), "tests is a folder without a plan.json"),
        (
            ("prune", "digits-cnn", "--data", "digits", "--input-shape", "3,8,8"),
            "the inputs of digits are 1,8,8",
        ),
        (
            ("score", "digits-cnn", "--criterion", "l1", "--out", "pyproject.toml"),
            "pyproject.toml exists and holds no scores",
        ),
        (
            ("eval", "torch.nn:Linear:in_features=5,out_features=2", "--data", "digits"),
            "cannot be run on the example inputs",
        ),
        (("prune", "digits-cnn", "--calibration", 64), "training split of --data"),
        (
            ("prune", "digits-cnn", "--calibration", 64, "--data", "digits:split=train"),
            "on another",
        ),
        (("prune", "digits-cnn", "--calibration", 99999, "--data", "digits"), "99999"),
    ],
)
def test_bad_input_is_one_line_with_the_thing_and_the_fix(
    run: Run, words: tuple[object, ...], said: str
) -> None:
    code, text, err = run(*words)
    assert code == 1
    assert text == ""
    assert said in err
    assert "Traceback" not in err


def test_an_existing_folder_needs_overwrite(run: Run, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    code, _, err = run("prune", "digits-cnn", "--weights", weights, "--out", out)
    assert code == 1
    assert "--overwrite" in err
    assert (out / "mine.txt").read_text() == "mine"
    code, _, err = run("prune", "digits-cnn", "--weights", weights, "--out", out, "--overwrite")
    assert code == 1
    assert "was not written by niwaki" in err
    assert (out / "mine.txt").read_text() == "mine"
    (out / "mine.txt").unlink()
    for _ in range(2):  # first into an empty folder, then over what was written
        code, _, _ = run("prune", "digits-cnn", "--weights", weights, "--out", out, "--overwrite")
        assert code == 0


def test_an_interrupt_leaves_nothing(
    run: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("niwaki.io.artefact.save_file", interrupted)
    code, _, _ = run("prune", "digits-cnn", "--weights", weights, "--out", tmp_path / "pruned")
    assert code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_paper_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        "reproduce", "neuron-merging", "--data-root", tmp_path, "--checkpoints", tmp_path
    )
    assert code == 1
    assert "lenet-300-100 was not run" in err
    assert "resnet56 was not run" in err
