"""The notation `name:key=value,key=value`, and what is said of one that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import nn

import niwaki
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.core.registry import Registry, parse
from niwaki.methods.base.compensation import COMPENSATIONS
from niwaki.methods.base.criterion import CRITERIA
from niwaki.methods.neuron_merging import Merge

TOOLS: Registry[Any] = Registry("tool")


@TOOLS.register("saw")
@dataclass(frozen=True)
class Saw:
    teeth: int = 3
    sharp: bool = True
    length: float | None = None
    kind: Literal["rip", "cross"] = "rip"
    owner: str = "nobody"


@pytest.mark.parametrize(
    ("spec", "name", "settings"),
    [
        ("l1", "l1", {}),
        (" l1 ", "l1", {}),
        ("merge:threshold=0.45", "merge", {"threshold": "0.45"}),
        ("rni: reg = 1e-3 , b=3", "rni", {"reg": "1e-3", "b": "3"}),
    ],
)
def test_notation_is_taken_apart(spec: str, name: str, settings: dict[str, str]) -> None:
    assert parse(spec) == (name, settings)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("saw:", "'saw:' ends in a colon; write 'saw' alone, or 'saw:key=value'"),
        ("saw:teeth", "cannot read 'teeth' in 'saw:teeth'"),
        ("saw:teeth=", "cannot read 'teeth='"),
        ("saw:=3", "cannot read '=3'"),
        ("saw:teeth=3,teeth=4", "'teeth' is given twice"),
        ("saw:teeth=3.5", "saw:teeth must be int; got '3.5'"),
        ("saw:sharp=maybe", "saw:sharp must be bool; got 'maybe'"),
        ("saw:length=far", "saw:length must be float; got 'far'"),
        ("saw:kind=chain", "saw:kind is one of rip, cross; got 'chain'"),
    ],
)
def test_what_cannot_be_read_is_named(spec: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        TOOLS.build(spec)
    assert message in str(caught.value)


def test_settings_are_read_as_their_fields_say() -> None:
    assert TOOLS.build("saw") == Saw()
    assert TOOLS.build("saw:teeth=5,sharp=False,length=1e2,kind=cross,owner=me") == Saw(
        5, False, 100.0, "cross", "me"
    )
    assert TOOLS.build("saw:length=none") == Saw(length=None)


@pytest.mark.parametrize(
    ("registry", "spec", "message"),
    [
        (TOOLS, "sew", "unknown tool 'sew'; did you mean 'saw'? known: saw"),
        (TOOLS, "zzz", "unknown tool 'zzz'; known: saw"),
        (CRITERIA, "l1:p=3", "unknown setting of criterion 'l1' 'p'; known: none"),
    ],
)
def test_unknown_names_offer_what_there_is(
    registry: Registry[Any], spec: str, message: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.build(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("registry", "spec", "nearest"),
    [
        (
            TOOLS,
            "saw:tooth=3",
            "unknown setting of tool 'saw' 'tooth'; did you mean 'teeth'? known: ",
        ),
        (CRITERIA, "l3", "unknown criterion 'l3'; did you mean 'l2' or 'l1'? known: "),
        (COMPENSATIONS, "marge", "unknown compensation 'marge'; did you mean 'merge'? known: "),
        (COMPENSATIONS, "merge:treshold=1", "'treshold'; did you mean 'threshold'? known: "),
    ],
)
def test_unknown_names_offer_the_nearest_and_then_all(
    registry: Registry[Any], spec: str, nearest: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.build(spec)
    assert nearest in str(caught.value)
    if ":" not in spec:
        assert str(caught.value).endswith("known: " + ", ".join(sorted(registry)))


def test_a_method_may_be_given_by_name_or_as_itself() -> None:
    assert COMPENSATIONS.build("merge:threshold=0.3,lam=0.5,bn=published") == Merge(
        0.3, 0.5, "published"
    )
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 3)
    )
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l1")), 0.5).plan
    by_name, itself = (
        niwaki.compensate(niwaki.Cut(graph, plan), "merge:threshold=-1"),
        niwaki.compensate(niwaki.Cut(graph, plan), Merge(-1)),
    )
    assert torch.equal(by_name.mixings["0"].matrix, itself.mixings["0"].matrix)
    assert niwaki.compensate(niwaki.Cut(graph, plan), "none").mixings == {}


def test_a_table_of_settings_is_spelled_as_it_is_built() -> None:
    from niwaki.methods.base import CRITERIA
    from niwaki.methods.mint import Mint, PairSettings

    mint = Mint(groups=4, by_layer={"conv*": PairSettings(groups=2), "fc": PairSettings(samples=9)})
    assert CRITERIA.build(CRITERIA.spell(mint)) == mint
    assert CRITERIA.spell(Mint()) == "mint"


@pytest.mark.parametrize("text", ["7", "{", '{\\"fc\\": 3}', '{\\"fc\\": {\\"of\\": 3}}'])
def test_a_table_that_is_none_is_told(text: str) -> None:
    from niwaki.methods.base import CRITERIA

    with pytest.raises(SettingError, match="table in JSON"):
        CRITERIA.build(f'mint:by_layer="{text}"')
