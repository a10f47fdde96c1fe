"""Folding and matching: against brute force, exact where units are alike, and the guard that never
does harm.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.plan import Kept
from niwaki.methods.base.one_for_one import weakened
from niwaki.methods.folding.criterion import stood_for, unions
from niwaki.methods.folding.likeness import likeness
from niwaki.methods.matching import assigned
from niwaki.methods.moments.accumulate import Moments
from niwaki.methods.reconstruction.least_squares import Joint, residual

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# what a unit is described by


def test_a_plain_layer_is_described_by_its_weights_and_bias() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)).double()
    first = within.part(model, "0", nn.Linear)
    rows = torch.cat([first.weight, first.bias[:, None]], 1).detach()
    graph = niwaki.trace(model, torch.randn(2, 5).double())
    torch.testing.assert_close(likeness(graph["0"], graph.state), rows @ rows.T)


def normalised(size: float) -> nn.Sequential:
    """A layer with a normalisation whose statistics are those that white inputs of some size lead
    to.
    """
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, eps=0.0), nn.ReLU(), nn.Linear(7, 2))
        .double()
        .eval()
    )
    state = model.state_dict()
    state["1.weight"].normal_()
    state["1.bias"].normal_()
    state["1.running_mean"].copy_(state["0.bias"])
    state["1.running_var"].copy_(size**2 * state["0.weight"].square().sum(1))
    return model


def distances(gram: Tensor) -> Tensor:
    return gram.diagonal()[:, None] + gram.diagonal() - 2 * gram


def test_distances_of_normalised_units_in_a_stream_are_those_of_their_values_under_white_inputs() -> (
    None
):
    model = normalised(1.7)
    graph = niwaki.trace(model, torch.randn(2, 5).double())
    twice = dataclasses.replace(graph["0"], writers=graph["0"].writers * 2)
    out = model[:2](1.7 * random(200_000, 5, seed=1)).detach()
    wanted = 2 * (out[:, :, None] - out[:, None]).square().mean(0)
    torch.testing.assert_close(
        distances(likeness(twice, graph.state)), wanted, rtol=0.05, atol=0.02
    )


def test_what_one_layer_writes_is_described_by_what_gets_through_a_rectifier() -> None:
    model = normalised(1.7)
    with torch.no_grad():
        within.tensor(model, "1.bias")[5:] = -20.0  # never on
    graph = niwaki.trace(model, torch.randn(2, 5).double())
    gram = likeness(graph["0"], graph.state)
    assert float(gram[5:].abs().max()) < 1e-12
    out = model[:3](1.7 * random(200_000, 5, seed=1)).detach()
    torch.testing.assert_close(gram.diagonal(), out.square().mean(0), rtol=0.05, atol=0.02)  # E y²


# clusters


def spread_within(points: Tensor, clusters: list[list[int]]) -> float:
    return sum(
        float((points[members] - points[members].mean(0)).square().sum()) for members in clusters
    )


def by_hand(points: Tensor) -> list[float]:
    """Ward's clustering, every union tried: what each adds."""
    clusters, added = [[i] for i in range(len(points))], []
    while len(clusters) > 1:
        now = spread_within(points, clusters)
        tried = []
        for a, b in itertools.combinations(range(len(clusters)), 2):
            rest = [members for i, members in enumerate(clusters) if i not in (a, b)]
            tried.append(
                (
                    spread_within(points, [*rest, clusters[a] + clusters[b]]) - now,
                    [*rest, clusters[a] + clusters[b]],
                )
            )
        cost, clusters = min(tried, key=lambda pair: pair[0])
        added.append(cost)
    return added


@pytest.mark.parametrize("seed", range(5))
def test_unions_are_those_that_add_least_to_the_spread(seed: int) -> None:
    points = random(9, 4, seed=seed)
    found = sorted(added for added, _, _ in unions((points @ points.T).numpy()))
    np.testing.assert_allclose(found, by_hand(points), rtol=1e-9)


@pytest.mark.parametrize("multiples", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_one_unit_of_every_cluster_stays_at_every_budget(seed: int, multiples: bool) -> None:
    centres = 10 * random(4, 3, seed=seed)
    sizes = (1, 2, 3, 6)
    points = torch.cat(
        [
            centre + 0.1 * random(size, 3, seed=seed + 9)
            for centre, size in zip(centres, sizes, strict=True)
        ]
    )
    owner = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    scores = torch.from_numpy(stood_for((points @ points.T).numpy(), multiples=multiples))
    assert len(scores.unique()) == 12
    kept = scores.argsort(descending=True)[:4]
    assert sorted(owner[kept].tolist()) == [0, 1, 2, 3]
    assert (scores > 0).all()


def test_who_stands_for_a_cluster_is_the_nearest_to_all_or_the_one_whose_multiples_are() -> None:
    points = torch.tensor([[1.0, 0.5], [1.1, 0.0], [3.0, 0.05], [0.2, 0.1]], dtype=torch.float64)
    gram = (points @ points.T).numpy()
    as_it_is = (points[:, None] - points).square().sum((0, 2))
    along = torch.from_numpy(np.maximum(gram, 0) / gram.diagonal())[:, :, None] * points
    multiple = (points[:, None] - along).square().sum((0, 2))
    for multiples, errors in ((False, as_it_is), (True, multiple)):
        # of the last two, that is: each had to win its own cluster first
        last = np.argsort(stood_for(gram, multiples=multiples))[::-1][:2]
        assert errors[int(last[0])] <= errors[int(last[1])]
    assert stood_for(gram, multiples=True).argmax() == 2


def test_equal_units_and_a_single_one() -> None:
    points = torch.ones(5, 2, dtype=torch.float64)
    scores = stood_for((points @ points.T).numpy(), multiples=False)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) == 5
    assert stood_for(np.ones((1, 1)), multiples=True).shape == (1,)
    assert np.isfinite(stood_for(np.zeros((4, 4)), multiples=True)).all()


# folding


class Stream(nn.Module):
    """Several layers write, several read, and nothing on the way is homogeneous."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(torch.tanh(self.inner(x)))
        out: Tensor = self.left(torch.nn.functional.gelu(x)) + self.right(torch.sigmoid(x))
        return out


def test_units_that_are_computed_alike_go_without_a_trace_on_a_stream() -> None:
    torch.manual_seed(0)
    model = Stream().double().eval()
    twins = {1: 0, 4: 5, 6: 0}
    with torch.no_grad():
        for layer in (model.stem, model.back):
            for a, b in twins.items():
                layer.weight[a], layer.bias[a] = layer.weight[b], layer.bias[b]
    x = random(6, 3, seed=1)
    graph = niwaki.trace(model, x)
    scores = niwaki.score(graph, "fold")["stem"]
    plan = niwaki.select(
        niwaki.Scores(graph, {"stem": scores}), 3 / 8, niwaki.Selection(only=("stem",))
    ).plan
    groups = ({0, 1, 6}, {4, 5}, {2}, {3}, {7})
    assert all(len(members & set(plan["stem"].units)) == 1 for members in groups)
    done = niwaki.compensate(niwaki.Cut(graph, plan), "fold")
    assert done.notes["stem"] == "folded 3 of 3 dropped units"
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, done.mixings))
    niwaki.check(niwaki.Cut(graph, plan, done.mixings), pruned)
    torch.testing.assert_close(pruned(x), model(x))
    assert (
        niwaki.compensate(niwaki.Cut(graph, plan), "merge").notes["stem"].startswith("not merged: ")
    )


def test_a_multiple_stands_in_behind_a_relu_and_what_is_like_nothing_is_dropped() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    first = within.part(model, "0", nn.Linear)
    with torch.no_grad():
        first.weight[3], first.bias[3] = 2.5 * first.weight[1], 2.5 * first.bias[1]
        first.weight[4], first.bias[4] = -first.weight[1], -first.bias[1]
    graph = niwaki.trace(model, random(2, 3, seed=0))
    mixing, note = niwaki.Fold().mix(graph["0"], [1], graph.state)
    assert mixing is not None
    assert mixing.matrix[3, 0] == pytest.approx(2.5)
    assert mixing.matrix[4, 0] == 0
    assert note.startswith("folded ")


# matching


@pytest.mark.parametrize("seed", range(20))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    rows, columns = 1 + seed % 5, 5 + seed % 3
    cost = random(rows, columns, seed=seed).numpy()
    if seed % 4 == 0:
        cost = cost.round()  # ties
    found = assigned(cost)
    assert len(set(found.tolist())) == rows
    least = min(
        sum(cost[i, j] for i, j in enumerate(taken))
        for taken in itertools.permutations(range(columns), rows)
    )
    assert cost[range(rows), found].sum() == pytest.approx(least)


def test_no_kept_unit_takes_more_than_its_share_and_twins_still_find_each_other() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2)).double().eval()
    first = within.part(model, "0", nn.Linear)
    with torch.no_grad():
        for unit in range(3, 9):  # all most like unit 0; unit 3 is its multiple
            first.weight[unit], first.bias[unit] = 3 * first.weight[0], 3 * first.bias[0]
        for unit in range(4, 9):
            first.weight[unit] += 0.2 * random(4, seed=unit)
    graph = niwaki.trace(model, random(2, 4, seed=0))
    matched, note = niwaki.Match(threshold=-1).mix(graph["0"], [0, 1, 2], graph.state)
    merged, _ = niwaki.Merge(threshold=-1).mix(graph["0"], [0, 1, 2], graph.state)
    assert matched is not None
    assert merged is not None
    assert note == "matched 6 of 6 dropped units"
    assert (merged.matrix != 0).sum(0).tolist() == [7, 1, 1]
    assert (matched.matrix != 0).sum(0).tolist() == [3, 3, 3]
    assert (
        niwaki.Match().mix(graph["0"], list(range(9)), graph.state)[0] is not None
    )  # nothing goes


# the guard


@pytest.mark.parametrize("seed", range(5))
def test_no_weaker_move_is_better(seed: int) -> None:
    width, units = 8, (0, 3, 5)
    root, reader = random(width, width, seed=seed), random(4, width, seed=seed + 50)
    moments, gram = Moments.stated(random(width, seed=seed + 100), root @ root.T), reader.T @ reader
    plain = niwaki.Mixing.selecting(width, units).matrix
    moves = random(width, 3, seed=seed + 150)
    moves[list(units)] = 0
    found = weakened(niwaki.Mixing(plain + moves), moments, units, gram)
    joint = Joint.of_original(moments.mean, moments.covariance, units)
    least = residual(joint, found, units, gram)
    assert least <= residual(joint, niwaki.Mixing(plain), units, gram)
    for trial in range(200):
        weights = torch.rand(
            width, 1, generator=torch.Generator().manual_seed(trial), dtype=torch.float64
        )
        assert residual(joint, niwaki.Mixing(plain + weights * moves), units, gram) >= least - 1e-9


@pytest.mark.parametrize("method", ["merge", "fold", "match"])
@pytest.mark.parametrize("inputs", [False, True])
def test_a_guarded_move_keeps_what_is_right_and_says_what_is_lost(
    method: str, inputs: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    first = within.part(model, "0", nn.Linear)
    with torch.no_grad():
        first.weight[3], first.bias[3] = 2.5 * first.weight[1], 2.5 * first.bias[1]
    x = random(50, 3, seed=0)
    graph = niwaki.trace(model, x[:2])
    plan = niwaki.Plan({"0": Kept(6, (0, 1, 2, 4, 5))})
    calibration = niwaki.Calibration.of([x]) if inputs else None
    done = niwaki.compensate(
        niwaki.Cut(graph, plan), f"{method}:guard=true", calibration=calibration
    )
    exact = 1e-9 if inputs else 2e-3  # derived moments of a ReLU come from a series
    assert done.residuals["0"] < exact
    assert (
        f"guarded: by {'the calibration inputs' if inputs else 'derived moments'} 0."
        in done.notes["0"]
    )
    assert float(done.mixings["0"].matrix[3, 1]) == pytest.approx(
        2.5, rel=0.02 if not inputs else 1e-6
    )
