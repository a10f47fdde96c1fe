"""Every Python block of the README and the docs runs: those of one page one after the other, in an
empty folder.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from niwaki.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>[\w. ]+) -->\s*)?^```python\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> list[tuple[int, str, list[str]]]:
    """Line number, code and needed libraries of each block."""
    text = page.read_text(encoding="utf-8")
    found = BLOCK.finditer(text)
    return [
        (text[: m.start("code")].count("\n"), m["code"], (m["needs"] or "").split()) for m in found
    ]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=[str(page.relative_to(ROOT)) for page in WITH_CODE])
def test_its_code_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_latency: None,
    one_thread: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code, needs in blocks(page):
        for library in needs:
            try:
                if library in ("timm", "transformers", "torchvision"):
                    importlib.import_module(
                        "torchvision_cpu"
                    )  # where torchvision's extension does not load
                importlib.import_module(library)
            except (ImportError, RuntimeError) as error:
                pytest.skip(f"needs {library}: {error}")
        exec(compile("\n" * line + code, str(page), "exec"), names)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_the_pages_in_the_navigation_are_there_or_left_out() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        hooks = importlib.import_module("hooks")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    entries = [
        {"Quick start": "index.md"},
        {"Gone": "nowhere.md"},
        {"Part": [{"API": "api.md"}, {"Gone": "no.md"}]},
    ]
    assert hooks._there(entries, ROOT / "docs") == [
        {"Quick start": "index.md"},
        {"Part": [{"API": "api.md"}]},
    ]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(
            r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")
        ):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_commands_for_those_who_come_from_the_papers_exist() -> None:
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    written = re.findall(r"^niwaki (\w+)(.*)$|`niwaki (\w+)([^`\n]*)`", text, re.MULTILINE)
    written = [(verb or other, words or more) for verb, words, other, more in written]
    assert len(written) > 7
    options = {
        verb: CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "300"}).output
        for verb in {verb for verb, _ in written}
    }
    for verb, words in written:
        assert [o for o in re.findall(r"--[a-z-]+", words) if o not in options[verb]] == [], words
