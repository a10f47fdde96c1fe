"""Examples in docstrings are run, and give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import niwaki
from niwaki.core.errors import MissingExtraError

ROOT = Path(niwaki.__file__).parent
MODULES = [
    ".".join(("niwaki", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


def test_examples_are_found() -> None:
    assert {"niwaki.core.budget", "niwaki.methods.gal"} <= set(MODULES)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed, "see what is printed above"
