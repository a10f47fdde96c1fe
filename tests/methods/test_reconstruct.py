"""Least squares on calibration inputs: against brute force, and what it says of inputs that are too
few, dead or broken.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import within
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError, TraceError
from niwaki.core.plan import Kept
from niwaki.methods.reconstruction.least_squares import Joint, residual, solve


def mlp(width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 3)
        )
        .double()
        .eval()
    )


def conv() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3, bias=False),
    ]
    return (
        nn.Sequential(*layers, nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3))
        .double()
        .eval()
    )


def inputs(*shape: int, batches: tuple[int, ...] = (40, 25)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, *shape, generator=generator, dtype=torch.float64) for size in batches]


def plan_of(graph: niwaki.Graph, share: float = 0.5) -> niwaki.Plan:
    return niwaki.Plan(
        {
            g.name: Kept(g.width, tuple(range(max(1, round(g.width * (1 - share))))))
            for g in graph.groups
        }
    )


def test_the_fit_of_one_layer_is_numpys_least_squares() -> None:
    model, data = mlp(), inputs(6)
    graph = niwaki.trace(model, data[0][:2])
    plan = niwaki.Plan({"0": Kept(12, (1, 4, 7))})
    for order in ("sequential", "parallel"):
        mixing = niwaki.compensate(
            niwaki.Cut(graph, plan),
            f"reconstruct:ridge=0,order={order}",
            calibration=niwaki.Calibration.of(data),
        ).mixings["0"]
        units = torch.relu(model[0](torch.cat(data))).detach()
        table = torch.cat([units[:, [1, 4, 7]], torch.ones(len(units), 1, dtype=torch.float64)], 1)
        wanted = torch.linalg.lstsq(table, units).solution
        torch.testing.assert_close(mixing.matrix, wanted[:3].T, rtol=1e-5, atol=1e-6)
        assert mixing.shift is not None
        torch.testing.assert_close(mixing.shift, wanted[3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "shape"), [(mlp, (6,)), (conv, (3, 6, 6))])
def test_a_unit_that_is_a_sum_of_kept_ones_is_not_missed(
    make: Callable[[], nn.Sequential], shape: tuple[int, ...]
) -> None:
    model, data = make(), inputs(*shape)
    with torch.no_grad():
        for tensor in (
            *model[0].parameters(),
            *(model[1].parameters() if isinstance(model[1], nn.BatchNorm2d) else ()),
        ):
            tensor[-2:] = tensor[:2] * 2  # the last two units are twice the first two
        if isinstance(model[1], nn.BatchNorm2d):
            model[1].weight[-2:] = model[1].weight[:2]
    first = next(iter(niwaki.trace(model, data[0][:2]).groups)).name
    x = data[1]
    result = niwaki.prune(
        model,
        data[0][:2],
        only=first,
        budget=0.25,
        criterion="l1",
        compensation="reconstruct:ridge=0",
        calibration=data,
    )
    again = niwaki.trace(model, data[0][:2])
    units = tuple(range(again[first].width - 2))
    plan = niwaki.Plan({first: Kept(again[first].width, units)})
    fitted = niwaki.compensate(
        niwaki.Cut(again, plan), "reconstruct:ridge=0", calibration=niwaki.Calibration.of(data)
    )
    pruned = niwaki.shrink(niwaki.Cut(again, plan, fitted.mixings))
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-5, atol=1e-5)
    assert fitted.residuals[first] < 1e-8
    assert set(result.notes) == {first}


def test_the_order_and_size_of_batches_do_not_matter() -> None:
    model, data = conv(), inputs(3, 6, 6, batches=(30,))[0]
    graph = niwaki.trace(model, data[:2])
    found = []
    for batches in ([data], list(data.flip(0).split(7)), list(data.split(11))):
        fitted = niwaki.compensate(
            niwaki.Cut(graph, plan_of(graph)),
            "reconstruct",
            calibration=niwaki.Calibration.of(batches),
        )
        found.append(fitted.mixings)
    for other in found[1:]:
        for name, mixing in found[0].items():
            torch.testing.assert_close(other[name].matrix, mixing.matrix, rtol=1e-6, atol=1e-8)


def test_no_better_mixing_exists() -> None:
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    mean, gram = (
        torch.randn(9, generator=generator, dtype=torch.float64),
        torch.eye(9, dtype=torch.float64),
    )
    joint = Joint.of_original(mean, root @ root.T, (0, 3, 5))
    best = solve(joint, (0, 3, 5), 0.0)
    least = residual(joint, best, (0, 3, 5), gram)
    for _ in range(50):
        other = niwaki.Mixing(
            best.matrix + 0.1 * torch.randn(9, 3, generator=generator, dtype=torch.float64),
            best.shift,
        )
        assert residual(joint, other, (0, 3, 5), gram) >= least - 1e-9
    assert best.shift is not None
    moved = niwaki.Mixing(best.matrix, best.shift + 0.1)
    assert residual(joint, moved, (0, 3, 5), gram) > least


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_inputs_than_units_raise_the_ridge_and_say_so(count: int) -> None:
    model, data = mlp(), inputs(6, batches=(count,))
    graph = niwaki.trace(model, torch.randn(2, 6, dtype=torch.float64))
    fitted = niwaki.compensate(
        niwaki.Cut(graph, plan_of(graph, 0.25)),
        "reconstruct",
        calibration=niwaki.Calibration.of(data),
    )
    assert "ridge raised" in fitted.notes["0"]
    assert all(bool(torch.isfinite(mixing.matrix).all()) for mixing in fitted.mixings.values())


def test_dead_and_constant_units() -> None:
    model, data = mlp(), inputs(6)
    with torch.no_grad():
        within.tensor(model, "0.weight")[:6] = 0
        within.tensor(model, "0.bias")[:3] = -1.0  # dead
        within.tensor(model, "0.bias")[3:6] = 2.0  # constant
    graph = niwaki.trace(model, data[0][:2])
    plan = niwaki.Plan({"0": Kept(12, (0, 3, 6, 7, 8, 9, 10, 11))})
    fitted = niwaki.compensate(
        niwaki.Cut(graph, plan), "reconstruct:ridge=0", calibration=niwaki.Calibration.of(data)
    )
    pruned = niwaki.shrink(niwaki.Cut(graph, plan, fitted.mixings))
    torch.testing.assert_close(pruned(data[0]), model(data[0]), rtol=1e-6, atol=1e-6)
    only_dead = niwaki.Plan({"0": Kept(12, (0, 1))})
    fitted = niwaki.compensate(
        niwaki.Cut(graph, only_dead), "reconstruct", calibration=niwaki.Calibration.of(data)
    )
    assert fitted.mixings["0"].shift is not None
    assert bool(torch.isfinite(fitted.mixings["0"].shift).all())


def test_bad_inputs_are_refused_in_a_sentence() -> None:
    model, data = mlp(), inputs(6)
    graph = niwaki.trace(model, data[0][:2])
    with pytest.raises(
        SettingError,
        match="reconstruct looks at what the network does with inputs; pass some as calibration=",
    ):
        niwaki.compensate(niwaki.Cut(graph, plan_of(graph)), "reconstruct")
    broken = [data[0], data[1].clone()]
    broken[1][3, 2] = torch.nan
    with pytest.raises(
        SettingError, match="holds NaN or infinite values; look for them in the inputs"
    ):
        niwaki.compensate(
            niwaki.Cut(graph, plan_of(graph)),
            "reconstruct",
            calibration=niwaki.Calibration.of(broken),
        )
    wrong = [torch.randn(4, 5, dtype=torch.float64)]
    with pytest.raises(TraceError, match=r"0 \(Linear\) on \(4, 5\) raised"):
        niwaki.compensate(
            niwaki.Cut(graph, plan_of(graph)),
            "reconstruct",
            calibration=niwaki.Calibration.of(wrong),
        )
    with pytest.raises(SettingError, match="reconstruct:ridge must be 0 or more; got -1"):
        niwaki.compensate(niwaki.Cut(graph, plan_of(graph)), "reconstruct:ridge=-1")
    with pytest.raises(SettingError, match="reconstruct:places must be at least 1"):
        niwaki.compensate(niwaki.Cut(graph, plan_of(graph)), "reconstruct:places=0")


def test_too_little_memory_takes_one_pass_and_says_so() -> None:
    model, data = mlp(), inputs(6)
    graph = niwaki.trace(model, data[0][:2])
    calibration = niwaki.Calibration.of(data)
    little = niwaki.compensate(
        niwaki.Cut(graph, plan_of(graph)), "reconstruct:memory=0", calibration=calibration
    )
    parallel = niwaki.compensate(
        niwaki.Cut(graph, plan_of(graph)), "reconstruct:order=parallel", calibration=calibration
    )
    for name, mixing in parallel.mixings.items():
        torch.testing.assert_close(little.mixings[name].matrix, mixing.matrix)
        assert "memory" in little.notes[name]


@pytest.mark.parametrize(
    ("kernel", "budget", "layout"),
    [
        (1, 0.5, torch.contiguous_format),
        (3, 0.9, torch.contiguous_format),
        (1, 0.5, torch.channels_last),
        (3, 0.7, torch.channels_last),
    ],
)
def test_a_flatten_behind_kernels_of_one_place_and_single_channels(
    kernel: int, budget: float, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    second = nn.Conv2d(4, 6, kernel, padding=kernel // 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), second, nn.ReLU())
    model = nn.Sequential(*model, nn.Flatten(), nn.Linear(6 * 49, 5)).eval()
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch lacks it
    data = [torch.randn(6, 3, 7, 7) for _ in range(3)]
    result = niwaki.prune(
        model, data[0][:2], budget=budget, compensation="reconstruct", calibration=data
    )
    assert all(note.startswith("reconstructed") for note in result.notes.values())
    assert not any("one by one" in note for note in result.notes.values())
