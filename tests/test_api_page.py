"""The API page has every public name, and nothing that is not there."""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path

import niwaki

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
WITH_OTHER_LIBRARIES = ("niwaki.integrations.",)


def test_every_public_name_is_on_the_api_page_once() -> None:
    listed = re.findall(r"^::: niwaki\.(\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    public = [
        name
        for name in niwaki.__all__
        if not isinstance(getattr(niwaki, name), types.ModuleType) and name != "__version__"
    ]
    assert sorted(listed) == sorted(public)


def test_what_is_listed_by_its_place_is_there() -> None:
    places = re.findall(r"^::: (niwaki\.\w+\..+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert places
    for place in places:
        home, _, name = place.rpartition(".")
        if place.startswith(WITH_OTHER_LIBRARIES):
            file = PAGE.parents[1] / "src" / Path(*home.split(".")).with_suffix(".py")
            assert f" {name}(" in file.read_text(encoding="utf-8"), place
        else:
            assert hasattr(importlib.import_module(home), name), place
