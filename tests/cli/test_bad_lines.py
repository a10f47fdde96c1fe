"""Three hundred command lines that ask for what cannot be: each ends with a code that is not 0 and
one sentence, never a traceback, and none writes anything.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from niwaki.cli.app import main
from niwaki.cli.commands import COMMANDS, load

pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")
NET, DATA = "digits-cnn", ("--data", "digits")
# what a call needs to be right, but for what is wrong with it; {out} is a free name
RIGHT: dict[str, tuple[str, ...]] = {
    "train": (NET, *DATA, "--out", "{out}", "--epochs", "1", "--limit", "8"),
    "score": (NET, "--criterion", "l1", "--out", "{out}.safetensors"),
    "prune": (NET, "--out", "{out}"),
    "finetune": ("{net}", *DATA, "--out", "{out}", "--epochs", "1", "--limit", "8"),
    "sensitivity": (NET, "--out", "{out}.png", "--ratios", "0.5"),
    "eval": (NET,),
    "inspect": (NET,),
    "export": (NET, "--out", "{out}", "--format", "pt2"),
    "report": ("{net}", "--out", "{out}.html"),
    "reproduce": ("mint", "--only", "nothing"),
    "demo": ("--out", "{out}"),
    "sweep": (NET, "--out", "{out}"),
}
WRONG_MODELS = (
    "resnet57", "", "digits-cnn:", "digits-cnn:classes", "digits-cnn:classes=ten", "nowhere:make",
    "digits-cnn:width=0", "os:system", "torch.nn:Linear", "torch.nn:Lin", "timm:nothing", "/",
    "transformers:config.json", "{file}", "{tmp}", "torch:zeros", "a:b:c=d", "..", "net\n", "\x00",
)  # fmt: skip
WRONG_VALUES: dict[str, tuple[str, ...]] = {
    "--weights": ("nowhere.pth", "{tmp}", "{file}", ""),
    "--data": ("mnits", "", "digits:validation=2", "digits:what=1", "os:getcwd", "no.no:f"),
    "--criterion": ("l3", "", "l1:", "l1:p=3", "mint:groups=none", "nowhere.safetensors"),
    "--compensation": ("glue", "", "merge:", "merge:threshold=high", "merge:threshold"),
    "--recovery": ("rest", "refit", "lbfgs:steps=few"),
    "--budget": ("1", "-0.1", "nan", "150%", "%", "params", "params=2", "money=0.5", "half", "",
                 "latency=0.5,batch=0", "params=0.99999", "channels=0.5,batch=2"),
    "--ratio": ("1", "inf", "a"),
    "--scope": ("everywhere", "", "local:", "local:min_units=999", "global:min_units=a",
                "blocks:", "blocks:what=1", "blocks:fed=perhaps", "blocks", "local:what=blocks"),
    "--quality": ("", "good", "best:steps=3"),
    "--calibration": ("0", "-1", "x", "64"),
    "--only": ("layer9*",),
    "--skip": ("layer9*",),
    "--input-shape": ("3x8", "", "a,b", "0,8,8", "-1,8,8", "1,8"),
    "--device": ("cuda:99", "tpu", ""),
    "--seed": ("-1", "x", "1.5", "99999999999999999999"),
    "--evaluate": ("nothing", "no.such:function", "math:nothing", "math:sqrt", "builtins:print"),
    "--epochs": ("0", "-1", "many"),
    "--lr": ("-1", "fast", "nan"),
    "--batch-size": ("0", "x"),
    "--limit": ("0", "x"),
    "--split": ("exam", ""),
    "--ratios": ("half", "", "0.5,1", "-1"),
    "--format": ("coreml", ""),
    "--sparsity": ("l3", "rni:reg=much"),
    "--schedule": ("sometimes",),
    "--set": ("precision", "precision=fp3", "what=1"),
    "--augment": ("flip", "pad=-1", "zoom=2"),
    "--missing": ("ignore",),
    "--tracker": ("paper",),
    "--every": ("-1", "often"),
    "--teacher": ("nowhere.pth",),
    "--out": ("{file}", "{tmp}", "/proc/nowhere/x"),
    "--dot": ("/nowhere/x.dot", "{file}"),
    "--html": ("/nowhere/x.html", "{file}"),
    "--engine": ("cloud",),
    "--groups": ("0",),
    "--workers": ("many",),
    "--front": ("accuracy", "", "accuracy,mac", "macs,macs", "accuracy,macs,params"),
    "--search": ("t", "", "t=0.1..0.9", "t=2..1", "t=1..2,lin", "=1..2"),
    "--trials": ("0", "3", "many"),
    "--unknown": ("1",),
}  # fmt: skip
TOGETHER = (
    ("prune", NET, "--ratio", "0.5", "--budget", "params=0.5"),
    ("prune", NET, "--scope", "blocks", "--dry-run"),
    ("prune", NET, "--criterion", "l1", "--scope", "blocks"),
    ("prune", NET, "--criterion", "mint", "--scope", "blocks", "--compensation", "merge"),
    ("prune", NET, *DATA, "--input-shape", "3,8,8"),
    ("prune", NET, "--calibration", "64"),
    ("prune", "{tmp}"),
    ("sensitivity", NET, "--out", "x.png", "--accuracy"),
    ("sensitivity", NET, "--out", "x.txt"),
    ("export", NET, "--out", "{out}", "--format", "int8"),
    ("finetune", NET, *DATA, "--out", "{out}"),
    ("report", "{tmp}"),
    ("report", "{net}", "--out", "{out}.csv"),
    ("reproduce", "nothing"),
    ("--quiet", "--verbose", "eval", NET),
    ("--trust",),
    ("prnue", NET),
    ("eval", NET, "more"),
    ("demo", "more"),
    ("sweep", "nowhere.toml", "--out", "{out}"),
    ("sweep", "nowhere.toml", NET, "--out", "{out}"),
    ("sweep", NET, NET, "--out", "{out}"),
    ("sweep", NET, "resnet57", "--out", "{out}"),
    ("sweep", NET, "--out", "{out}", "--criterion", "l1", "--criterion", "l1"),
    ("sweep", NET, "--out", "{out}", "--criterion", "l1", "--criterion", "l3"),
    ("sweep", NET, "--out", "{out}", "--budget", "0.5", "--budget", "1.5"),
    ("sweep", NET, "--out", "{out}", "--compensation", "merge:threshold={t}"),
    ("sweep", NET, "--out", "{out}", "--compensation", "merge:threshold={t}", "--search", "t=1..2",
     "--search", "t=1..2"),
    ("sweep", NET, "--out", "{out}", *DATA, "--compensation", "merge:threshold={t}", "--search",
     "t=2..3", "--trials", "1"),
    ("sweep", NET, "--out", "{out}", "--data", "digits:split=test", "--compensation",
     "merge:threshold={t}", "--search", "t=0.1..0.9"),
    ("sweep", NET, "--out", "{out}", "--workers", "0"),
    ("sweep", NET), ("sweep",),
    ("prune",), ("train", NET), ("export", NET), ("finetune",), ("score", NET),
    ("sensitivity", NET), ("eval",),
    (),
)  # fmt: skip


def options_of(command: str) -> set[str]:
    return {option for parameter in load(command).params for option in parameter.opts}


def lines() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = list(TOGETHER)
    for command, right in RIGHT.items():
        if command not in ("report", "reproduce", "demo", "finetune"):
            found += [(command, model, *right[1:]) for model in WRONG_MODELS]
        known = options_of(command)
        for option, values in WRONG_VALUES.items():
            if option in known or option == "--unknown":
                found += [(command, *right, option, value) for value in values]
        names = [name for name in sorted(known) if name.startswith("--")]
        found += [(command, *right, name) for name in names[:4] if not _is_flag(command, name)]
    usual = ("train", "{tmp}")  # a training run may lie beside other files
    return [line for line in found if (*line[:1], *line[-1:]) != usual]


def _is_flag(command: str, option: str) -> bool:
    return any(option in p.opts and getattr(p, "is_flag", False) for p in load(command).params)


LINES = (lambda every: every[: len(TOGETHER)] + every[len(TOGETHER) :: 2])(lines())


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import niwaki

    model = niwaki.models.build("digits-cnn").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model))
    return niwaki.save(result, tmp_path_factory.mktemp("net") / "net")


def test_there_are_three_hundred() -> None:
    assert len(LINES) >= 300


CHUNKS = 12


def faults(
    line: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[object]:
    """What is wrong with how a line ends: nothing, where it is one sentence and a code."""
    monkeypatch.setattr(sys, "argv", ["niwaki", *line])
    capsys.readouterr()
    try:
        main()
        code: object = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:  # a raw error is what this looks for
        code = f"{type(error).__name__}: {error}"
    said = capsys.readouterr().err
    sentence = [text for text in said.splitlines() if text.startswith("error: ")]
    good = isinstance(code, int) and code > 0 and len(sentence) == bool(line)
    return [] if good and "Traceback" not in said else [(line, code, said[-300:])]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_bad_line_is_one_sentence_and_writes_nothing(
    chunk: int,
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    places = {"net": net, "tmp": tmp_path, "file": tmp_path / "mine.txt", "out": tmp_path / "out"}
    wrong = []
    for line in itertools.islice(LINES, chunk, None, CHUNKS):
        words = [word.format(**places) if word.startswith("{") else word for word in line]
        wrong += faults(words, monkeypatch, capsys)
        for left in set(tmp_path.rglob("*")) - {tmp_path / "mine.txt"}:
            wrong.append((line, "left", str(left)))
            if left.is_file():
                left.unlink()
        assert (tmp_path / "mine.txt").read_text() == "mine"
    assert wrong == []


SWEEPS = (
    "models = 3", "models = [[]]", "models = []", "data = 'digits'", "model = 'digits-cnn'",
    *(f"models = 'digits-cnn'\n{line}" for line in (
        "front = 3", "front = ['accuracy', 'macs']", "trials = 'many'", "trials = 0", "trials = true",
        "search = 't=1..2'", "search = ['t=1..2']", "search = {t = '1..2'}", "search = {t = 3}",
        "data = 5", "data_root = 5", "calibration = 'all'", "calibration = 0", "calibration = 1.5",
        "calibration = true", "timed = 1", "timed = 'yes'", "evaluate = 1", "device = 0", "scope = 1", "recovery = 'rest'",
        "recovery = {a = 1}", "skip = [1, [2]]", "only = true", "input_shape = [1, 8]", "seeds = -1",
        "seeds = 'a'", "seeds = [99999999999999999999]", "budgets = [true]", "criteria = {l1 = 1}",
        "trust = 1", "[models]", "search = {}\ntrials = 3", "criteria = ['l1', 'l1']",
        "calibration = 1979-05-27",
    )),
)  # fmt: skip


def test_a_bad_file_of_a_sweep_is_one_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, wrong = tmp_path / "sweep.toml", list[object]()
    for text in SWEEPS:
        path.write_text(text)
        found = faults(["sweep", "sweep.toml", "--out", "out"], monkeypatch, capsys)
        wrong += [(text, *found)] if found or list(tmp_path.iterdir()) != [path] else []
    assert wrong == []


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_has_more_than_twenty_options(command: str) -> None:
    loaded = load(command)
    options = [p for p in loaded.params if p.param_type_name == "option" and "--help" not in p.opts]
    assert len(options) <= 20
    about = " ".join((loaded.help or "").split())
    assert about.startswith(COMMANDS[command][1])
