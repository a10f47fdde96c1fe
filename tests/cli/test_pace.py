"""The time that a queue of cells still takes."""

from __future__ import annotations

import pytest

from niwaki.cli.pace import Pace, duration
from niwaki.papers.recipe import RECIPES


def test_time_left_is_that_of_the_cells_that_were_run() -> None:
    now, said = [0.0], list[str]()
    pace = Pace(5, said.append, lambda: now[0])
    for seconds in (0.1, 100.0, 200.0):  # the first was read from a record
        now[0] += seconds
        pace("cell")
    assert said == [
        "cell (1 of 5)",
        "cell (2 of 5, about 5 min left)",
        "cell (3 of 5, about 5 min left)",
    ]
    pace.skip(1)
    now[0] += 300
    pace("last")
    assert said[-1] == "last (4 of 4)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (7200, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_cells_are_as_many_as_rows() -> None:
    assert RECIPES.build("baselines").cells("resnet56") == 8
    assert RECIPES.build("mint").cells("mnist-mlp") == 9
    assert RECIPES.build("mint:seed=1").cells("mnist-mlp") == 3
    assert RECIPES.build("rni").cells("vgg16-cifar10") == 9
    assert RECIPES.build("rni:method=ucs").cells("vgg16-cifar10") == 3
    assert RECIPES.build("neuron-merging").cells("vgg16") == 1 + 15
