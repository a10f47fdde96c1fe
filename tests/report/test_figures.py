"""The figure is a whole PNG of the promised size, drawn without touching the user's matplotlib."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needed import needs

from niwaki.core.errors import DataError, MissingExtraError, OutputError, UnknownNameError
from niwaki.report import FigurePoint, accuracy_size_figure

needs("matplotlib")

POINTS = [
    FigurePoint("magnitude", 0.6, 0.80, 0.92),
    FigurePoint("magnitude", 0.2, 0.22, 0.87),
    FigurePoint("merge", 0.2, 0.66),
    FigurePoint("merge", 0.6, 0.90),
]


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("baseline", [None, 0.93])
def test_figure_is_a_whole_png(tmp_path: Path, baseline: float | None) -> None:
    path = tmp_path / "figure.png"
    accuracy_size_figure(POINTS, path, baseline=baseline, title="ResNet-56 on CIFAR-10")
    assert size_of(path) == (1200, 750)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("smallest", [1_000, 600_000])
def test_sizes_in_parameters(tmp_path: Path, smallest: float) -> None:
    points = [FigurePoint("a", smallest, 0.5), FigurePoint("a", 1_000_000, 0.9)]
    accuracy_size_figure(points, tmp_path / "figure.png", unit="params")
    assert size_of(tmp_path / "figure.png") == (1200, 750)


def test_lines_baseline_and_legend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *arguments: Any, **settings: Any) -> None:
        drawn.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)
    accuracy_size_figure(POINTS, tmp_path / "figure.png", baseline=0.93)
    axes = drawn[0].axes[0]
    solid, dotted, merge, baseline = axes.get_lines()
    assert np.asarray(solid.get_xdata()).tolist() == [0.2, 0.6]
    assert np.asarray(solid.get_ydata()).tolist() == pytest.approx([87, 92])
    assert np.asarray(dotted.get_ydata()).tolist() == pytest.approx([22, 80])
    assert np.asarray(merge.get_ydata()).tolist() == pytest.approx([66, 90])
    assert solid.get_color() == dotted.get_color() != merge.get_color()
    assert solid.get_marker() != merge.get_marker()
    assert np.asarray(baseline.get_ydata()).tolist() == pytest.approx([93, 93])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["magnitude", "merge"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "after fine-tuning",
        "before",
    ]
    assert axes.texts[0].get_text() == "unpruned 93.0"


def test_pyplot_and_the_backend_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from niwaki.report import FigurePoint, accuracy_size_figure\n"
        "assert 'matplotlib' not in sys.modules\n"
        "accuracy_size_figure([FigurePoint('a', 0.5, 0.9)], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "figure.png")], check=True)
    assert size_of(tmp_path / "figure.png") == (1200, 750)


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ([], "at least one point"),
        ([FigurePoint("a", 0.5, 93.0)], r"share in \[0, 1\]; got 93.0"),
        ([FigurePoint("a", 0.5, 0.9, float("nan"))], "got nan"),
        ([FigurePoint("a", 5000, 0.9)], "pass unit='params'"),
    ],
)
def test_points_out_of_range_are_refused(
    tmp_path: Path, points: list[FigurePoint], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        accuracy_size_figure(points, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


def test_bad_unit_and_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown unit 'param'; did you mean 'params'"):
        accuracy_size_figure(POINTS, tmp_path / "figure.png", unit="param")  # type: ignore[arg-type]  # refused
    with pytest.raises(OutputError, match="cannot write"):
        accuracy_size_figure(POINTS, tmp_path / "no" / "figure.png")


def test_missing_matplotlib_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'niwaki\[plot\]'"):
        accuracy_size_figure(POINTS, tmp_path / "figure.png")
