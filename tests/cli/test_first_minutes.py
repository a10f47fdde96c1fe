"""The first five minutes: what starts at once, what is said how loudly, and numbers that stay whole
on a narrow screen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from niwaki.cli.app import main
from niwaki.cli.console import table
from niwaki.cli.voice import to_front

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_latency: None,
    one_thread: None,
) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["niwaki", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        streams = capsys.readouterr()
        return int(stop.value.code or 0), streams.out, streams.err

    return call


def seconds(*words: str) -> float:
    """The quickest of three starts of a process."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_starts_about_as_fast_as_what_prints_it(word: str) -> None:
    bare = seconds("-c", "import typer, rich")
    assert seconds("-m", "niwaki", word) < 4 * bare + 0.3  # 0.16 and 0.35 s on an idle machine


def test_the_version_is_said(run: Run) -> None:
    assert run("--version")[1].startswith("niwaki ")


def test_quiet_says_results_and_nothing_else(run: Run) -> None:
    code, out, err = run("eval", "digits-cnn", "--quiet")
    assert (code, err) == (0, "")
    assert "parameters" in out
    code, out, err = run("eval", "digits-cnn")
    assert "fresh random weights" in err
    code, out, err = run("-q", "eval", "resnet57")
    assert code == 1
    assert err.startswith("error: unknown model 'resnet57'")


def test_verbose_says_what_took_how_long_and_where_an_error_came_from(run: Run) -> None:
    _, _, err = run("prune", "digits-cnn", "-v")
    assert "trace took" in err
    _, _, err = run("eval", "resnet57", "--verbose")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: unknown model 'resnet57'")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["prune", "x", "-q"], ["-q", "prune", "x"]),
        (["prune", "--trust", "a", "x", "--trust=b"], ["--trust", "a", "--trust=b", "prune", "x"]),
        (["report", "--", "--quiet"], ["report", "--", "--quiet"]),
        ([], []),
    ],
)
def test_options_of_niwaki_itself_may_stand_anywhere(words: list[str], wanted: list[str]) -> None:
    assert to_front(words) == wanted


def test_one_network_has_one_column(run: Run) -> None:
    _, out, _ = run("eval", "digits-cnn")
    assert "measured" in out
    assert "change" not in out
    (line,) = [line for line in out.splitlines() if "parameters" in line]
    assert line.split() == ["parameters", "90,090"]


@pytest.mark.parametrize("width", [10, 20, 40, 80])
def test_numbers_stay_whole_on_a_narrow_screen(width: int) -> None:
    rows = [
        ("parameters", "11,689,512", "5,123,456", "2.28× less"),
        ("a [bold]layer", "1,234.5", "0.1", ""),
    ]
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115  # dies with it
    console.print(table("a network", ("", "before", "after", "change"), rows))
    joined = "".join(console.export_text().split())
    for cell in (cell for row in rows for cell in row):
        assert "".join(cell.split()) in joined


OWN = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def loader():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(64, 1, 8, 8), torch.randint(10, (64,)))
    return DataLoader(data, batch_size=16)

def both():
    return {"train": loader(), "test": [{"x": torch.randn(4, 1, 8, 8)}]}

def plain_list(): return [torch.randn(8, 1, 8, 8)] * 3
def once(): return (batch for batch in [])
def nothing(): return None
def broken(): raise RuntimeError("the disk of labels is away")
def sized(model): return {"size": sum(p.numel() for p in model.parameters())}
def silent(model): pass
def fails(model): raise ValueError("no boxes")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_code.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_code", raising=False)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--data", "my_code:loader"), "accuracy"),
        (("--data", "my_code:loader", "--calibration", 32), "accuracy"),
        (("--data", "my_code:loader", "--evaluate", "my_code:sized"), "size"),
        (("--data", "my_code:plain_list", "--evaluate", "my_code:sized"), "size"),
        (("--evaluate", "my_code:sized"), "size"),
    ],
)
def test_data_and_judgement_of_ones_own(
    own: None, run: Run, words: tuple[Any, ...], wanted: str
) -> None:
    code, out, err = run("prune", "digits-cnn", *words)
    assert code == 0, err
    assert wanted in out
    code, out, err = run(
        "eval", "digits-cnn", *(w for w in words if w not in ("--calibration", 32))
    )
    assert code == 0, err
    assert wanted in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "my_code:once"), "only once"),
        (("--data", "my_code:nothing"), "returned a NoneType"),
        (("--data", "my_code:broken"), "the disk of labels is away"),
        (("--data", "my_code:absent"), "unknown factory"),
        (("--data", "my_code:plain_list"), "say how well a network does with --evaluate"),
        (("--evaluate", "my_code:silent"), "evaluate= returned None"),
        (("--evaluate", "my_code:fails"), "ValueError: no boxes"),
        (("--evaluate", "my_code"), "package.module:function"),
    ],
)
def test_own_code_that_does_not_do_is_one_sentence(
    own: None, run: Run, words: tuple[Any, ...], said: str
) -> None:
    code, _, err = run("prune", "digits-cnn", *words)
    assert code == 1
    assert said in err
    assert "Traceback" not in err
