"""Arguments of a recorded operator by their name in its schema: given by place, by name, left out,
unknown.
"""

from __future__ import annotations

import pytest
import torch

from niwaki.running import Op, Ref

ATEN = torch.ops.aten


def _op(func: object, *args: object, **kwargs: object) -> Op:
    return Op(func, args, kwargs, (Ref(9),), "layer")  # type: ignore[arg-type]  # an OpOverload


def test_an_argument_is_known_by_its_place_in_the_schema() -> None:
    op = _op(ATEN.convolution.default, Ref(0), Ref(1), None, [1], [2], [1], False, [0], 4)
    assert (op["input"], op["weight"], op["bias"]) == (Ref(0), Ref(1), None)
    assert (op["padding"], op["transposed"], op["groups"]) == ([2], False, 4)


def test_an_argument_may_be_given_by_name() -> None:
    op = _op(ATEN.addmm.default, Ref(0), Ref(1), Ref(2), beta=3)
    assert (op["self"], op["mat2"], op["beta"]) == (Ref(0), Ref(2), 3)


@pytest.mark.parametrize(
    ("func", "name", "default"),
    [
        (ATEN.slice.Tensor, "dim", 0),
        (ATEN.slice.Tensor, "start", None),
        (ATEN.slice.Tensor, "step", 1),
        (ATEN.embedding.default, "padding_idx", -1),
        (ATEN.add.Tensor, "alpha", 1),
    ],
)
def test_what_was_left_out_is_the_schemas_default(func: object, name: str, default: object) -> None:
    assert _op(func)[name] == default


def test_two_overloads_of_one_operator_are_told_apart() -> None:
    assert _op(ATEN.mean.dim, Ref(0), [1])["dim"] == [1]
    with pytest.raises(KeyError):
        _op(ATEN.mean.default, Ref(0))["dim"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"aten\.mm .*'groups'.*self, mat2"):
        _op(ATEN.mm.default, Ref(0), Ref(1))["groups"]
