"""Arguments of a recorded operator, by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from niwaki.running import Op, record


def convolution() -> Op:
    (op,) = record(nn.Conv2d(3, 4, 3, padding=1).eval(), torch.randn(1, 3, 5, 5)).ops
    return op


def test_arguments_have_names_and_places() -> None:
    op = convolution()
    assert (op["groups"], op["padding"], op.first) == (1, [1, 1], op["input"])
    assert (op.place("weight"), op.place("groups")) == (1, 8)
    assert op.takes("bias")
    assert not op.takes("mat2")
    with pytest.raises(KeyError, match=r"no argument 'mat2': it takes input, weight, bias"):
        op.place("mat2")


def test_some_arguments_are_exchanged_by_name() -> None:
    op = convolution()
    assert op.replaced({"groups": 3})[8] == 3
    assert op.replaced({"groups": 3})[:8] == op.args[:8]
    assert op.replaced({"padding": [0, 0]}, range(9)) == (0, 1, 2, 3, [0, 0], 5, 6, 7, 8)
    with pytest.raises(KeyError, match="was not given 'bias' by place"):
        op.replaced({"bias": None}, [1, 2])


def test_an_operator_is_run_on_another_first_argument() -> None:
    (op,) = record(nn.Flatten(1, 2).eval(), torch.randn(2, 3, 4)).ops
    assert op.on(torch.arange(24).view(2, 3, 4)).shape == (2, 12)
