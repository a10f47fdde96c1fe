"""Units, blocks of weights and branches are parts of one plan: each kind of pruned network is saved,
loaded, loaded without niwaki, reported, trained, pruned again and exported, alone and together.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.blocks import BlockPlan, LayerBlocks
from niwaki.core.budget import Budget
from niwaki.core.plan import Kept, Plan
from niwaki.pruning._finish import finished
from niwaki.pruning.search import Attempt, Clock
from niwaki.report import read_runs, report_page


def network() -> nn.Module:
    return niwaki.models.build("resnet20").eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def quarters(model: nn.Module, name: str) -> LayerBlocks:
    """Four by four groups, of which every other block stays."""
    out, inside = model.get_parameter(name).shape[:2]
    rows = tuple(place * 4 // out for place in range(out))
    columns = tuple(place * 4 // inside for place in range(inside))
    kept = tuple((r, c) for r in range(4) for c in range(4) if (r + c) % 2 == 0)
    return LayerBlocks(rows, columns, kept)


def units(plan: Plan) -> Plan:
    name = "layer3.0.conv1"
    return replace(plan, units={**plan.units, name: Kept(64, tuple(range(0, 64, 2)))})


def blocks(plan: Plan) -> Plan:
    name = "layer2.0.conv2.weight"
    return replace(plan, blocks=BlockPlan({name: quarters(network(), name)}))


def branches(plan: Plan) -> Plan:
    return replace(plan, branches={"layer3.2": {"layer3.2": "identity"}})


KINDS: dict[str, Callable[[Plan], Plan]] = {
    "units": units,
    "blocks": blocks,
    "branches": branches,
    "all": lambda plan: branches(blocks(units(plan))),
}


def result_of(model: nn.Module, plan: Plan) -> niwaki.Result:
    cut = niwaki.Cut(niwaki.trace(model, images()), plan)
    smaller = niwaki.shrink(cut)
    attempt = Attempt(smaller, cut, niwaki.check(cut, smaller), {})
    return finished(attempt, Budget(0.0), {"criterion": "by hand"}, Clock())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_all_the_way(kind: str, tmp_path: Path, quick_latency: None) -> None:
    model = network()
    result = result_of(model, KINDS[kind](Plan()))
    assert niwaki.count_params(result.model) < niwaki.count_params(model)

    folder = niwaki.save(result, tmp_path / "pruned", model="resnet20")
    again = niwaki.load(folder)
    with torch.no_grad():
        assert torch.equal(again(images(3)), result.model.eval()(images(3)))
    assert json.loads((folder / "plan.json").read_text())["schema"] == 3

    page = report_page(*read_runs([folder]))
    assert "resnet20" in page

    loss = again.train()(images(4)).square().mean()
    loss.backward()
    again.eval()

    if kind in ("units", "branches"):
        twice = niwaki.prune(again, images(), budget=0.3, only="layer1.*", compensation="none")
        niwaki.save(twice, tmp_path / "twice", model="resnet20")
        third = niwaki.load(tmp_path / "twice")
        with torch.no_grad():
            assert torch.equal(third(images(3)), twice.model.eval()(images(3)))

    exported = niwaki.export_program(result.model, images(), tmp_path / "model.pt2")
    assert exported.difference < 1e-5


@pytest.mark.parametrize("kind", ["branches", "all"])
def test_it_loads_where_niwaki_is_not(kind: str, tmp_path: Path, quick_latency: None) -> None:
    result = result_of(network(), KINDS[kind](Plan()))
    folder = niwaki.save(result, tmp_path / "pruned", model="resnet20")
    torch.save({"x": images(3), "y": result.model.eval()(images(3)).detach()}, tmp_path / "run.pt")
    code = (
        "import sys, torch, niwaki\n"
        "original = niwaki.models.build('resnet20')\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "import load_without_niwaki as alone\n"
        f"model = alone.load_pruned({str(folder)!r}, original)\n"
        f"run = torch.load({str(tmp_path / 'run.pt')!r})\n"
        "print(torch.allclose(model(run['x']), run['y'], atol=1e-5))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_folder_with_a_layer_that_is_not_there_is_refused(
    tmp_path: Path, quick_latency: None
) -> None:
    result = result_of(network(), branches(Plan()))
    folder = niwaki.save(result, tmp_path / "pruned", model="resnet20")
    text = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text(text.replace('"identity"', '"import os"'))
    with pytest.raises(niwaki.NiwakiError):
        niwaki.load(folder)


def test_a_plan_of_all_kinds_is_text_and_back() -> None:
    plan = KINDS["all"](Plan())
    assert Plan.from_json(plan.to_json()) == plan
    assert "branches gone" in repr(plan)
