"""The pruned network as a graph of operators: what the module is, and more where the module's code
stands in the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import zoo
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

import niwaki
from niwaki.core.mixing import Mixing
from niwaki.methods.base.cut import Cut
from niwaki.proof._check import check
from niwaki.proof.reference import reference_outputs
from niwaki.surgery import rewrite

pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")

REFUSED = {  # what one graph cannot stand for
    "DataDependentBranch": "depends on the values",
    "OutputTwice": "more than tensors",
    "DataclassOutput": "more than tensors",
    "ObjectOutput": "more than tensors",
}


def pruned(model: nn.Module, inputs: Any, form: Any, **settings: Any) -> niwaki.Result:
    return niwaki.prune(model, inputs, compensation="none", form=form, **settings)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_it_computes_what_the_masked_original_does(name: str) -> None:
    model = zoo.build(name)
    inputs, other = zoo.inputs(model, 1), zoo.inputs(model, 2)
    try:
        plain = pruned(model, inputs, "module")
    except niwaki.NiwakiError:
        plain = None
    refusal = None
    try:
        result = pruned(model, inputs, "graph")
    except niwaki.NiwakiError as error:
        refusal = str(error)
    if refusal is not None:
        assert plain is None or REFUSED[name] in refusal
        return
    assert isinstance(result.model, fx.GraphModule)
    assert result.form == "graph"
    graph = niwaki.trace(model, inputs)
    wanted = reference_outputs(Cut(graph, result.plan), other)
    assert oracle.distance(wanted, oracle.outputs(result.model, other)) < 1e-5
    if plain is not None:
        # never less than the module, and the same tensors under the same names where it is the same
        # plan
        assert result.record.after.params <= plain.record.after.params
        if plain.plan.units == result.plan.units and not graph.computed:
            expected = dict(plain.model.named_parameters())
            assert {name: p.requires_grad for name, p in result.model.named_parameters()} == {
                name: p.requires_grad for name, p in expected.items()
            }
            assert all(
                torch.equal(p, expected[name]) for name, p in result.model.named_parameters()
            )


def test_code_that_states_a_size_no_longer_stands_in_the_way() -> None:
    model = zoo.build("HardCodedView")
    inputs = zoo.inputs(model, 1)
    with pytest.raises(niwaki.NiwakiError):
        pruned(model, inputs, "module")
    result = pruned(model, inputs, "graph")
    assert result.record.after.params < 0.7 * result.record.before.params


class Batches(nn.Module):
    """Sizes of the batch in views, in new tensors, and in attention over windows; a part that was
    never trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 5)
        self.norm.requires_grad_(False)

    def forward(self, x: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
        x = torch.relu(self.stem(x)).flatten(2).transpose(1, 2) * scale
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.norm((x + self.down(nn.functional.gelu(self.up(x)))).mean(1))
        return {"logits": self.head(x), "zeros": x.new_zeros(len(x), 2)}


def batches() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Batches().eval(), torch.randn(2, 3, 4, 4)


def test_the_batch_may_be_of_any_size() -> None:
    model, x = batches()
    small = pruned(model, x, "graph").model
    larger = torch.randn(5, 3, 4, 4)
    whole = small(larger)["logits"]
    assert whole.shape == (5, 5)
    assert small(larger)["zeros"].shape == (5, 2)
    for i in range(4):
        torch.testing.assert_close(small(larger[i : i + 2])["logits"], whole[i : i + 2])


def test_a_batch_whose_samples_depend_on_each_other_keeps_its_size() -> None:
    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(torch.relu(self.a(x - x.mean(0, keepdim=True))))
            return out

    torch.manual_seed(0)
    small = pruned(Ranked().eval(), torch.randn(4, 6), "graph").model
    assert small(torch.randn(4, 6)).shape == (4, 3)
    with pytest.raises(AssertionError, match="for batches of 4"):
        small(torch.randn(5, 6))


def test_it_trains_and_is_exported() -> None:
    model, x = batches()
    result = pruned(model, x, "graph")
    small = result.model
    assert not small.get_parameter("norm.weight").requires_grad
    optimizer = torch.optim.AdamW([p for p in small.parameters() if p.requires_grad], lr=1e-2)
    x, y = torch.randn(16, 3, 4, 4), torch.arange(16) % 5
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(small(x)["logits"], y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    exported = torch.export.export(
        small, (x,), dynamic_shapes=({0: torch.export.Dim("batch")}, None)[:1]
    )
    other = torch.randn(3, 3, 4, 4)
    torch.testing.assert_close(exported.module()(other)["logits"], small(other)["logits"])


def test_an_optimizer_goes_over_to_it() -> None:
    model, x = batches()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    result = niwaki.prune(model, x, compensation="none", form="graph")
    result.hand_over(optimizer)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in result.model.parameters()}


@pytest.mark.parametrize("name", ["ConvNoBias", "ConvBias", "PlainMlp", "IdentityShortcut"])
def test_a_mixing_with_a_shift_is_taken_up(name: str) -> None:
    model = zoo.build(name).double()
    inputs = tree_map(lambda leaf: leaf.double(), zoo.inputs(model, 1))
    graph = niwaki.trace(model, inputs)
    plan = niwaki.select(niwaki.Scores(graph, niwaki.score(graph, "l2")), 0.5).plan
    generator = torch.Generator().manual_seed(0)
    mixings = {}
    for group, units in plan.kept.items():
        if graph[group].fold_obstacle is None and graph[group].normalised is None:
            width = graph[group].width
            matrix = torch.randn(width, len(units), generator=generator, dtype=torch.float64)
            mixings[group] = Mixing(
                matrix, torch.randn(width, generator=generator, dtype=torch.float64)
            )
    assert mixings
    assert check(Cut(graph, plan, mixings), rewrite(Cut(graph, plan, mixings))).difference < 1e-10


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    model, x = batches()
    with pytest.raises(niwaki.core.errors.UnknownNameError, match=r"form 'grapf'.*graph"):
        niwaki.prune(model, x, form="grapf")  # type: ignore[arg-type]  # refused
    with pytest.raises(niwaki.core.errors.SettingError, match="measured on modules"):
        niwaki.prune(model, x, form="graph", budget="latency=0.5")
    result = pruned(model, x, "graph")
    with pytest.raises(niwaki.NiwakiError, match=r"niwaki\.export_program"):
        niwaki.save(result, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    niwaki.export_program(result.model, x, tmp_path / "model.pt2")
    again = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(again(x)["logits"], result.model(x)["logits"])


def test_the_other_form_is_named_where_a_group_was_left_whole() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(torch.relu(self.b(self.a(x).view(len(x), 3, 4).flatten(1))))
            return out

    torch.manual_seed(0)
    model, x = Half().eval(), torch.randn(2, 6)
    result = pruned(model, x, "module")
    assert any("form='graph' may prune what was left whole" in note for note in result.record.notes)
    assert pruned(model, x, "graph").record.after.params < result.record.after.params


class Named(nn.Module):
    """Layers and parameters under a name of any kind."""

    def __init__(self, name: str, layer: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.name = name
        held = nn.Linear(8, 8) if layer else nn.Parameter(torch.randn(8, 8))
        setattr(self, name, held)

    def forward(self, x: Tensor) -> Tensor:
        held = getattr(self, self.name)
        h = torch.relu(self.first(x))
        h = held(h) if isinstance(held, nn.Module) else h @ held
        return self.last(torch.relu(h))  # type: ignore[no-any-return]


@pytest.mark.parametrize("layer", [True, False])
@pytest.mark.parametrize("name", ["code", "graph", "recompile", "meta"])
def test_names_that_graphs_of_operators_have_for_themselves(name: str, layer: bool) -> None:
    torch.manual_seed(0)
    model, x = Named(name, layer).eval(), torch.randn(2, 4)
    with pytest.raises(niwaki.NiwakiError, match=f"{name}.* cannot keep its name in a graph"):
        niwaki.prune(model, x, 0.5, form="graph")
    assert len(niwaki.prune(model, x, 0.5).plan["first"].units) == 4
    graph = niwaki.prune(Named("encoder", layer).eval(), x, 0.5, form="graph")
    assert len(graph.plan["first"].units) == 4
