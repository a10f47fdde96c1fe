"""A group that is left whole says where and why; what does not belong to it is cut."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import within
from torch import nn

import niwaki

pytestmark = pytest.mark.usefixtures("one_thread", "quick_latency")


class Block(nn.Module):
    """Between two layers stands code that knows the width of the first."""

    def __init__(self, **numbers: object) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 3)
        for name, number in numbers.items():
            setattr(self, name, number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(torch.relu(self.b(self.between(torch.relu(self.a(x))))))
        return out

    def between(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Literal(Block):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 32)


class LiteralPair(Block):
    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], 4, 8).flatten(1)


class Hidden(Block):
    """Its number stands in a table, where no attribute shows it."""

    def between(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], {"width": 32}["width"])


def line_of(kind: type[Block]) -> str:
    lines, first = inspect.getsourcelines(kind.between)
    place = next(number for number, line in enumerate(lines) if "return" in line)
    return f"{Path(__file__).name}:{first + place}"


@pytest.mark.parametrize("kind", [Literal, LiteralPair, Hidden])
def test_what_is_left_whole_names_its_line_and_spares_its_neighbours(kind: type[Block]) -> None:
    result = niwaki.prune(kind(steps=5).eval(), torch.randn(4, 8), compensation="none")
    left = {name: why for name, why in result.notes.items() if why.startswith("left whole")}
    assert {name.partition("#")[0] for name in left} == {"a"}
    assert re.search(rf"it is aten\.\w+ in the model, called at \S*{line_of(kind)}", left["a"])
    assert "read there from a tensor (x.shape)" in left["a"]
    assert (
        within.size(result.model, "a.out_features"),
        within.size(result.model, "b.out_features"),
    ) == (32, 12)


class Two(nn.Module):
    """Two streams meet in one view; the code holds the size of one and reads that of the other."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(8, 10)
        self.c, self.d = nn.Linear(10, 3), nn.Linear(6, 2)
        self.first, self.steps = first, 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outer = self.a(x)[:, :, None] * self.b(x)[:, None, :]
        rows, columns = outer.shape[1:]
        shape = (6, columns) if self.first else (rows, 10)
        out: torch.Tensor = self.d(self.c(outer.view(-1, *shape)).transpose(1, 2))
        return out


@pytest.mark.parametrize(("first", "whole", "cut"), [(True, "a", "b"), (False, "b", "a")])
def test_a_size_that_is_read_from_a_shape_is_not_blamed(first: bool, whole: str, cut: str) -> None:
    result = niwaki.prune(Two(first).eval(), torch.randn(4, 8), compensation="none")
    assert getattr(result.model, whole).out_features == {"a": 6, "b": 10}[whole]
    assert getattr(result.model, cut).out_features == {"a": 3, "b": 5}[cut]


def test_the_attribute_that_an_operator_was_given_is_named() -> None:
    class Torn(Block):
        rows: int
        columns: int

        def between(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, self.rows * self.columns)

    model = Torn(rows=4, columns=8).eval()
    result = niwaki.prune(model, torch.randn(4, 8), compensation="none")
    why = result.notes["a"]
    assert "given rows and columns" in why
    assert "cannot be told apart" in why
    assert within.size(result.model, "b.out_features") == 12
