"""A page of hundreds of runs stays light, can be sorted and filtered, and its badges can be read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from test_report import browser, write_run  # noqa: F401  # the fixture is used by its name

from niwaki.core.records import Record
from niwaki.report import read_runs, report_page


class Nodes(HTMLParser):
    """Counts elements that a browser lays out: not those in templates."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.inside = self.templates = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "template":
            self.inside, self.templates = self.inside + 1, self.templates + 1
        self.count += not self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag == "template"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(200):
        run = write_run(
            folder / f"run-{number:03d}", params=1000 - number, accuracy=0.9 - number / 500
        )
        record = Record.from_json((run / "record.json").read_text())
        more = {f"layer{i}": 0.01 * i for i in range(60)}
        record = type(record)(**{**vars(record), "residuals": more})
        (run / "record.json").write_text(record.to_json())
    return folder


def nodes(page: str) -> Nodes:
    parser = Nodes()
    parser.feed(page)
    return parser


def test_two_hundred_runs_are_a_light_page(many: Path) -> None:
    page = report_page(read_runs([many])[0])
    found = nodes(page)
    assert found.templates == 199
    assert found.count < 12_000
    assert page.count("<tr class=unpruned>") == 1


@pytest.mark.parametrize("count", [1, 2, 12])
def test_few_runs_are_drawn_at_once(count: int, tmp_path: Path) -> None:
    for number in range(count):
        write_run(tmp_path / f"run-{number}")
    page = report_page(read_runs([tmp_path])[0])
    assert nodes(page).templates == 0
    assert ('id="filter"' in page or "id=filter" in page) == (count > 1)


def test_each_original_stands_once(tmp_path: Path) -> None:
    for number in range(4):
        run = write_run(tmp_path / f"run-{number}")
        text = (run / "record.json").read_text()
        if number % 2:
            (run / "record.json").write_text(text.replace('"params": 1000', '"params": 2000'))
    page = report_page(read_runs([tmp_path])[0])
    assert re.findall(r"the original of ([\d, ]+)<", page) == ["1, 3", "2, 4"]


def test_scores_of_ones_own_have_columns(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", accuracy=None, loss=None)
    text = (run / "record.json").read_text()
    (run / "record.json").write_text(text.replace('"scores": {}', '"scores": {"m<AP": 0.4125}'))
    page = report_page(read_runs([tmp_path])[0])
    assert "<button type=button>m&lt;AP</button>" in page
    assert "data-value='0.4125'" in page


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("front", ["card"])
@pytest.mark.parametrize("back", ["stone", "leaf", "bark"])
def test_badges_and_marks_can_be_read(theme: int, front: str, back: str) -> None:
    """WCAG 2 asks for a contrast of 4.5 between letters and what is behind them."""
    style = resources.files("niwaki.report").joinpath("page.css").read_text(encoding="utf-8")
    colours = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media")[:2]
    ]
    a, b = sorted(luminance(colours[theme][name]) for name in (front, back))
    assert (b + 0.05) / (a + 0.05) >= 4.5


def test_a_browser_sorts_filters_and_unfolds(browser, many: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    path = tmp_path / "report.html"
    path.write_text(report_page(read_runs([many])[0]), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.locator("thead button", has_text="parameters").click()
    first = page.locator("tr[data-run]").first
    assert first.get_attribute("data-run") == "200"
    page.fill("#filter", "run-01")
    assert page.locator("tr[data-run]:visible").count() == 10
    assert page.locator("#shown").inner_text() == "10 runs"
    page.locator("#run-11 summary").click()
    page.locator("#run-11 .inside .bar").first.wait_for()  # drawn when it is unfolded
    assert page.locator("#run-11 .inside .bar").count() > 60


def test_what_was_not_timed_is_not_shown_as_quick(tmp_path: Path) -> None:
    def untimed(name: str, **after: float) -> None:
        run = write_run(tmp_path / name, latency_ms=0.0, **after)
        text = (run / "record.json").read_text()
        (run / "record.json").write_text(text.replace('"latency_ms": 2.0', '"latency_ms": 0.0'))

    untimed("behind", params=800, accuracy=0.5)
    untimed("best", params=500, accuracy=0.8)
    page = report_page(read_runs([tmp_path])[0])
    assert "less latency" not in page
    assert "Accuracy against time" not in page
    assert "<button type=button>ms</button>" not in page
    assert page.count("badge best") == 1  # no time of 0 ms is on the front
    write_run(tmp_path / "timed", params=900, accuracy=0.4, latency_ms=1.0)
    both = report_page(read_runs([tmp_path])[0])
    assert "Accuracy against time" in both
    assert "<button type=button>ms</button>" in both
    assert both.count("data-label='ms' class=none") == 2
    assert both.count("badge best") == 2


def test_of_many_dots_those_behind_the_front_are_small(many: Path, tmp_path: Path) -> None:
    page = report_page(read_runs([many])[0])
    assert page.count('class="dot other small"') > 100
    assert 'class="dot other"' not in page
    for number in range(20):
        write_run(tmp_path / f"run-{number}", params=500 + number, accuracy=0.8 - number / 100)
    assert 'class="dot other small"' not in report_page(read_runs([tmp_path])[0])
