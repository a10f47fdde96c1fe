"""What a user is shown of a network's groups: as a table, as JSON, as a Graphviz file, as a
page.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from torch import nn

import niwaki
from niwaki.cli.app import app
from niwaki.core.records import count
from niwaki.graph import outline
from niwaki.report import channels_dot, channels_html


class Block(nn.Module):
    """A stream of 6, and an inner width of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down, self.head = (
            nn.Linear(3, 6),
            nn.Linear(6, 8),
            nn.Linear(8, 6),
            nn.Linear(6, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        out: torch.Tensor = self.head(x + self.down(torch.relu(self.up(x))))
        return out


def test_every_group_says_what_it_costs_and_what_it_is_computed_from() -> None:
    found = outline(niwaki.trace(Block(), torch.ones(1, 3)))
    stream, inner = found.groups
    assert (found.params, found.macs) == (24 + 56 + 54 + 14, 18 + 48 + 48 + 12)
    assert (stream.name, stream.width, stream.reads) == ("stem", 6, ("up",))
    assert (inner.name, inner.width, inner.reads) == ("up", 8, ("stem",))
    # all of stem and down, the columns of up and head: their biases stay
    assert (stream.params, stream.macs) == (24 + 54 + 48 + 12, 18 + 48 + 48 + 12)
    assert (inner.params, inner.macs) == (56 + 48, 96)
    assert (inner.producers, inner.consumers) == (("up",), ("down",))
    text = str(found)
    assert re.search(r"up +8 +104 +96 +up +down", text)
    assert "the model: 148 params, 126 MACs" in text
    assert re.search(r"head +2 +model output", text)


def test_counts_are_short() -> None:
    numbers = (0, 999, 1000, 12_345, 999_999, 45_600_000, 6_738_415_616)
    assert [count(number) for number in numbers] == [
        "0",
        "999",
        "1.00 k",
        "12.3 k",
        "1.00 M",
        "45.6 M",
        "6.74 G",
    ]


def test_the_graphviz_file_has_a_node_a_group_and_an_edge_a_reading() -> None:
    dot = channels_dot(outline(niwaki.trace(Block(), torch.ones(1, 3))))
    assert dot.startswith('digraph "Block" {')
    assert dot.count("[label=") == 2
    assert '"stem" -> "up";' in dot
    assert '"up" -> "stem";' in dot


class Page(HTMLParser):
    """Notes tags that are open, rows, and anything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.paths = 0, 0
        self.fetched: list[str | None] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        self.paths += tag == "path"
        self.fetched += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_draws_every_group_and_fetches_nothing() -> None:
    graph = niwaki.trace(niwaki.models.build("resnet20"), torch.ones(1, 3, 32, 32))
    found = outline(graph)
    page = Page()
    page.feed(channels_html(found))
    assert page.rows == 1 + len(found.groups) + 1 + len(found.frozen)
    assert page.paths == sum(len(group.reads) for group in found.groups)
    assert not page.fetched
    text = channels_html(found)
    assert text.count("<section class=detail") == len(found.groups)
    assert "passed on by</dt><dd>bn1" in text


def test_names_are_escaped() -> None:
    model = nn.Sequential()
    model.add_module('<b>"x', nn.Linear(3, 4))
    model.add_module("out", nn.Linear(4, 2))
    found = outline(niwaki.trace(model, torch.ones(1, 3)))
    assert "<b>" not in channels_html(found)
    assert '\\"x"' in channels_dot(found)


def test_inspect_writes_them_all(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    dot, html = tmp_path / "g.dot", tmp_path / "g.html"
    done = CliRunner().invoke(
        app, ["inspect", "resnet20", "--json", "--dot", str(dot), "--html", str(html)]
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["groups"][0]["name"] == "conv1"
    assert data["params"] == niwaki.count_params(niwaki.models.build("resnet20"))
    assert dot.read_text().startswith("digraph")
    assert html.read_text().startswith("<!doctype html>")
