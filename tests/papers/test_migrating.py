"""Every command of the sources has its twin in docs/migrating.md, and each of these runs, on a tiny
budget.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niwaki.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")
# what their commands are called with, and their scripts
FLAGS = [
    "--Epoch",
    "--Batch_size",
    "--Lr",
    "--Save_dir",
    "--Dataset",
    "--Dims",
    "--Expt_rerun",
    "--Milestones",
    "--Opt",
    "--Weight_decay",
    "--Model",
    "--Gamma",
    "--Nesterov",
    "--Device_ids",
    "--model",
    "--dataset",
    "--weights_dir",
    "--cores",
    "--dims",
    "--key_id",
    "--samples_per_class",
    "--parent_clusters",
    "--children_clusters",
    "--name_postfix",
    "--Retrain",
    "--Retrain_mask",
    "--Labels_file",
    "--Labels_children_file",
    "--parent_key",
    "--children_key",
    "--upper_prune_limit",
    "--upper_prune_per",
    "--lower_prune_per",
    "--prune_per_step",
]
SCRIPTS = [
    "LeNet_300_100_FashionMNIST.sh",
    "VGG16_CIFAR10.sh",
    "VGG16_CIFAR100_train.sh",
    "VGG16_CIFAR100.sh",
    "ResNet56_CIFAR10.sh",
    "WideResNet_40_4_CIFAR10.sh",
    "train_stage1.py",
    "pruning_1b.py",
    "retrain_stage3.py",
]
TINY = {  # option → its value in a test
    "--epochs": "1",
    "--groups": "5x5",
    "--samples-per-class": "20",
    "--budget": "params=0.6",
    "--checkpoints": "{shared}/checkpoints",
}


def twins() -> list[list[str]]:
    """The commands of the page, without the comments between them."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
    return [shlex.split(line)[1:] for line in lines]


def test_every_flag_and_script_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [flag for flag in FLAGS if f"`{flag}" not in text] == []
    assert [script for script in SCRIPTS if script not in text] == []


def tiny(words: list[str], shared: Path) -> list[str]:
    """The same command on little: few images, one epoch, and of what has no weights the plan."""
    shared_places = {"data": "data", "lenet.pth.tar": "lenet-300-100.fashion_mnist.pth.tar",
                     "resnet56.pth.tar": "resnet56.cifar10.pth.tar"}  # fmt: skip
    done: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if before in TINY:
            word = TINY[before].format(shared=shared)
        elif before == "--data-root":
            word = str(shared / shared_places[word])
        elif before == "--weights" and word in shared_places:
            word = str(shared / "checkpoints" / shared_places[word])
        elif before == "--data" and words[0] in ("prune", "eval"):
            word += f"{',' if ':' in word else ':'}limit=100"
        elif before == "--set" and word.startswith("milestones"):
            word = "milestones=1"
        done.append(word)
    if words[0] in ("train", "finetune"):
        done += ["--limit", "256", "--tracker", "none"]
    return done


MINT = [words for words in twins() if "mnist" in words]
MERGING = [words for words in twins() if words[0] in ("eval", "prune") and words not in MINT]


def run(words: list[str]) -> None:
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, (words, said.output, said.exception)


def test_mint_from_training_to_retraining(
    shared_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    assert [words[0] for words in MINT] == ["train", "score", "prune", "finetune"]
    for words in MINT:
        run(tiny(words, shared_root))
    assert (tmp_path / "runs" / "tuned" / "record.json").is_file()


@pytest.mark.parametrize("words", MERGING, ids=lambda words: f"{words[0]}-{words[1]}-{words[-1]}")
def test_a_twin_of_neuron_merging_runs(
    words: list[str], shared_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = tiny(words, shared_root)
    if not Path(called[called.index("--weights") + 1]).is_file():  # theirs are not at hand
        place = called.index("--weights")
        called = [*called[:place], *called[place + 2 :], "--dry-run"]
    if "cifar100" in called[called.index("--data") + 1]:
        pytest.skip("CIFAR-100 is not at hand")
    run(called)


@pytest.mark.parametrize("paper", ["neuron-merging", "mint"])
def test_whole_tables_are_named_as_they_are(paper: str) -> None:
    (words,) = [words for words in twins() if words[:2] == ["reproduce", paper]]
    called = CliRunner().invoke(app, [*words, "--list"])
    assert called.exit_code == 0, called.output
