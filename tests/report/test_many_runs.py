"""A page of hundreds of runs stays light, can be sorted and filtered, and its badges can be read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from test_report import write_run

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


@pytest.fixture(scope="module")
def page_of_many(many: Path) -> str:
    return report_page(read_runs([many])[0])


def nodes(page: str) -> Nodes:
    parser = Nodes()
    parser.feed(page)
    return parser


def test_two_hundred_runs_are_a_light_page(page_of_many: str) -> None:
    page = page_of_many
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


def test_a_browser_sorts_filters_and_unfolds(
    browser: Any,
    page_of_many: str,
    tmp_path: Path,
) -> None:
    page = opened(browser, page_of_many, tmp_path)
    page.locator("thead button", has_text="parameters").click()
    first = page.locator("tr[data-run]").first
    assert first.get_attribute("data-run") == "200"
    page.fill("#filter", "run-01")
    assert page.locator("tr[data-run]:visible").count() == 10
    assert page.locator("#shown").inner_text() == "10 runs"
    page.locator("#run-11 summary").click()
    page.locator("#run-11 .inside .bar").first.wait_for()  # drawn when it is unfolded
    assert page.locator("#run-11 .inside .bar").count() > 60


def opened(browser: Any, html: str, folder: Path, **settings: Any) -> Any:
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    page = browser.new_context(**settings).new_page()
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("width", [400, 1280])
def test_many_rows_come_page_by_page(
    browser: Any,
    page_of_many: str,
    tmp_path: Path,
    width: int,
) -> None:
    page = opened(browser, page_of_many, tmp_path, viewport={"width": width, "height": 900})
    errors = list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    rows, sections = page.locator("tr[data-run]:visible"), page.locator("details[id^=run-]:visible")
    back, on, whole = (page.locator("nav.pages button").nth(number) for number in range(3))
    where = page.locator("nav.pages [role=status]")

    def numbers() -> list[int]:
        found: list[int] = rows.evaluate_all("rows => rows.map(row => Number(row.dataset.run))")
        return found  # of all rows in one question: a browser takes long over each

    assert numbers() == list(range(1, 26))
    assert sections.count() == 25
    assert back.get_attribute("aria-disabled") == "true"
    back.click(force=True)  # there is nothing before the first
    assert where.inner_text() == "1–25 of 200"
    on.focus()
    page.keyboard.press("Enter")
    assert numbers() == list(range(26, 51))
    assert page.locator("#run-26").is_visible()
    assert not page.locator("#run-25").is_visible()

    page.fill("#filter", "run-1")  # 100 of them
    assert (where.inner_text(), numbers()[0], len(numbers())) == ("1–25 of 100", 101, 25)
    for _ in range(9):
        on.click(force=True)
    assert (where.inner_text(), numbers()[-1]) == ("76–100 of 100", 200)
    page.fill("#filter", "no such run")
    assert (where.inner_text(), numbers()) == ("0–0 of 0", [])
    page.fill("#filter", "")

    whole.click()
    assert numbers() == list(range(1, 201))
    whole.click()
    assert len(numbers()) == 25
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(numbers()) == 200
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(numbers()) == 25
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []


def test_without_scripts_all_rows_are_there(
    browser: Any,
    page_of_many: str,
    tmp_path: Path,
) -> None:
    page = opened(browser, page_of_many, tmp_path, java_script_enabled=False)
    assert page.locator("tr[data-run]:visible").count() == 200
    assert page.locator("nav.pages:visible").count() == 0


def test_few_rows_need_no_pages(tmp_path: Path) -> None:
    for number in range(25):
        write_run(tmp_path / f"run-{number}")
    assert "<nav" not in report_page(read_runs([tmp_path])[0])
    write_run(tmp_path / "one-more")
    assert "data-size=25 hidden" in report_page(read_runs([tmp_path])[0])


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


def test_of_many_dots_those_behind_the_front_are_small(page_of_many: str, tmp_path: Path) -> None:
    page = page_of_many
    assert page.count('class="dot other small"') > 100
    assert 'class="dot other"' not in page
    for number in range(20):
        write_run(tmp_path / f"run-{number}", params=500 + number, accuracy=0.8 - number / 100)
    assert 'class="dot other small"' not in report_page(read_runs([tmp_path])[0])
