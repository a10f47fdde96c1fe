"""What criteria and compensations see of the model on inputs of any batch size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import SettingError, TraceError
from niwaki.running import Op, run


class Branching(nn.Module):
    """Takes another path for inputs of a negative sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.a(x)) if bool(x.sum() > 0) else torch.tanh(self.a(x))


def plain(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return op.func(*args, **kwargs)


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(8 * 36, 5),
        ),
        nn.Sequential(
            nn.Flatten(1, 2),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            nn.Linear(8, 2),
        ),
        nn.Sequential(nn.Flatten(1, 2), nn.LSTM(8, 6, batch_first=True)),
    ],
    ids=["cnn", "transformer", "lstm"],
)
def test_running_by_operators_gives_the_models_output_at_any_batch_size(
    model: nn.Module, batch: int
) -> None:
    model = model.eval()
    tape = niwaki.trace(model, torch.randn(2, 3, 8, 8)).inference.tape
    x = torch.randn(batch, 3, 8, 8)
    positions = []

    def step(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        positions.append(position)
        return plain(position, op, args, kwargs)

    found = run(model, tape, x, step)
    with torch.no_grad():
        wanted = model(x)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    torch.testing.assert_close(found[0], wanted)
    assert positions == list(range(len(tape.ops)))


def test_a_step_may_change_what_later_operators_see() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    tape = niwaki.trace(model, torch.randn(1, 4)).inference.tape

    def zeroed(position: int, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = plain(position, op, args, kwargs)
        return result * 0 if op.name == "aten.relu" else result

    (found,) = run(model, tape, torch.randn(5, 4), zeroed)
    assert isinstance(model[2], nn.Linear)
    torch.testing.assert_close(found, model[2].bias.expand(5, 2))


def test_another_path_is_refused_and_the_model_left_as_it_was() -> None:
    model = Branching().train()
    tape = niwaki.trace(model, torch.ones(1, 4)).inference.tape
    with pytest.raises(
        TraceError, match=r"another path than on the example inputs: aten.tanh where aten.relu"
    ):
        run(model, tape, -torch.ones(3, 4), plain)
    assert model.training


def test_inputs_of_another_shape_name_the_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 6))
    tape = niwaki.trace(model, torch.ones(1, 4)).inference.tape
    with pytest.raises(TraceError, match=r"0 \(Linear\) on \(3, 5\) raised"):
        run(model, tape, torch.ones(3, 5), plain)


def test_calibration_is_gone_through_afresh_and_says_what_is_missing() -> None:
    graph = niwaki.trace(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.ones(1, 4)
    )
    evidence = niwaki.Evidence(graph, niwaki.Calibration.of([torch.ones(2, 4), torch.ones(1, 4)]))
    assert [len(inputs) for inputs, _ in evidence.batches("x")] == [2, 1]
    assert [len(inputs) for inputs, _ in evidence.batches("x")] == [2, 1]
    labelled = niwaki.Calibration.labelled([(torch.ones(2, 4), torch.tensor([0, 1]))])
    assert [labels.tolist() for _, labels in labelled.batches() if labels is not None] == [[0, 1]]
    with pytest.raises(
        SettingError,
        match="mint looks at what the network does with inputs; pass some as calibration=",
    ):
        list(niwaki.Evidence(graph).batches("mint"))
    with pytest.raises(SettingError, match="has none"):
        list(niwaki.Evidence(graph, niwaki.Calibration.of([])).batches("mint"))
    with pytest.raises(SettingError, match="only once"):
        niwaki.Calibration.of(torch.ones(1, 4) for _ in range(2))
