"""Pages by keyboard and for a screen reader, in Chromium: landmarks, what can be reached, and, with
axe-core at hand, none of its rules broken:

    npm install --prefix /tmp/axe axe-core
    NIWAKI_AXE=/tmp/axe/node_modules/axe-core/axe.min.js pytest tests/report/test_in_a_browser.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_report import write_run

import niwaki
from niwaki.graph import outline
from niwaki.report import channels_html, read_runs, report_page

AXE = os.environ.get("NIWAKI_AXE")


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = niwaki.trace(niwaki.models.build("resnet20"), torch.ones(1, 3, 32, 32))
    path = tmp_path_factory.mktemp("channels") / "channels.html"
    path.write_text(channels_html(outline(graph)), encoding="utf-8")
    return path


def shown(browser: Any, path: Path, **settings: Any) -> tuple[Any, list[str]]:
    page, errors = browser.new_context(**settings).new_page(), list[str]()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(path.as_uri())
    return page, errors


@pytest.mark.parametrize("width", [400, 1280])
def test_a_group_shows_its_layers_by_mouse_and_by_keyboard(
    browser: Any,
    channels: Path,
    width: int,
) -> None:
    page, errors = shown(browser, channels, viewport={"width": width, "height": 900})
    names, details = page.locator(".groups button"), page.locator(".detail:visible")
    assert details.count() == 0
    names.nth(1).click()
    assert details.count() == 1
    assert "layer1.0.conv2" in details.inner_text()  # what reads it
    assert page.locator("path.chosen").count() == 2  # from the stream, and back into it
    assert names.nth(1).get_attribute("aria-expanded") == "true"
    names.nth(0).focus()
    page.keyboard.press("Enter")
    assert "36.2% of the model" in details.inner_text()
    page.keyboard.press("Escape")
    assert details.count() == 0
    assert page.evaluate("document.activeElement.dataset.group") == "0"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert errors == []


def test_without_scripts_all_groups_stand_below(browser: Any, channels: Path) -> None:
    page, _ = shown(browser, channels, java_script_enabled=False)
    assert page.locator(".detail:visible").count() == page.locator(".groups tbody tr").count()


@pytest.mark.skipif(AXE is None, reason="needs axe-core, named by NIWAKI_AXE")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("runs", [0, 1, 20, 200])
def test_no_rule_of_axe_is_broken(
    browser: Any,
    channels: Path,
    tmp_path: Path,
    runs: int,
    width: int,
    scheme: str,
) -> None:
    path = tmp_path / "report.html" if runs else channels
    for number in range(runs):
        write_run(tmp_path / f"run-{number:03d}", params=900 - number, accuracy=0.9 - number / 400)
    if runs:
        path.write_text(report_page(read_runs([tmp_path])[0]), encoding="utf-8")
    size = {"width": width, "height": 900}
    page, _ = shown(browser, path, viewport=size, color_scheme=scheme, bypass_csp=True)
    page.evaluate("[...document.querySelectorAll('details')].slice(0, 5).map(d => d.open = true)")
    page.evaluate("document.querySelector('.groups button')?.click()")
    page.add_script_tag(path=AXE)
    found = page.evaluate("async () => (await axe.run()).violations.map(rule => rule.id)")
    assert found == []
