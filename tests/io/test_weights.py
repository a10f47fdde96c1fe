"""Reading weights without running code, and loading them all or not at all."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import within
from safetensors.torch import save_file
from torch import Tensor, nn

from niwaki.core.errors import CheckpointError
from niwaki.io.weights import load_weights, read_weights


class Net(nn.Module):
    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, 4)
        self.bn = nn.BatchNorm1d(4)


class TiedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def other_weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        name: torch.rand_like(t) if t.is_floating_point() else t + 7
        for name, t in Net().state_dict().items()
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_reads_what_training_scripts_write(tmp_path: Path, wrap: str | None, prefix: str) -> None:
    state = other_weights()
    named = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(named if wrap is None else {"acc": 93.9, wrap: named}, tmp_path / "w.pth.tar")
    assert same(read_weights(tmp_path / "w.pth.tar"), state)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(other_weights(), tmp_path / "w.safetensors")
    assert same(read_weights(str(tmp_path / "w.safetensors")), other_weights())


def test_a_prefix_of_some_names_only_is_kept(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt")) == ["module.a", "b"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_malicious_files_run_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"fc.weight": Malicious(trace)}, tmp_path / "evil.pt")
    with pytest.raises(
        CheckpointError,
        match=r"evil.pt is refused.*mkdir would have to run.*save model.state_dict\(\)",
    ):
        read_weights(tmp_path / "evil.pt")
    for protocol in (2, 4):
        (tmp_path / "plain.pt").write_bytes(
            pickle.dumps({"fc.weight": Malicious(trace)}, protocol=protocol)
        )
        with pytest.raises(CheckpointError, match=r"plain.pt"):
            read_weights(tmp_path / "plain.pt")
    assert not trace.exists()


def test_whole_models_are_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(
        CheckpointError, match=r"Linear would have to run.*save model.state_dict\(\) alone"
    ):
        read_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_torch_files(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "w.pt"
    torch.save(nn.Linear(50, 50).state_dict(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(
        CheckpointError, match=r"w.pt is damaged.*again|w.pt is damaged.*torch.save"
    ):
        read_weights(path)


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(other_weights(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list, not tensors by name"),
        ({}, "holds an empty dict"),
        (torch.ones(1), "holds a Tensor"),
        ({"w": torch.ones(1), "epoch": 3}, "holds a int named 'epoch'"),
        ({"state_dict": {}}, "holds an empty dict"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "w.pt")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone.pt: no such file"):
        read_weights(tmp_path / "gone.pt")
    (tmp_path / "none.pt").touch()
    with pytest.raises(CheckpointError, match=r"none.pt is empty"):
        read_weights(tmp_path / "none.pt")


def test_loads_and_casts() -> None:
    model = Net().double()
    load_weights(model, other_weights())
    assert model.fc.weight.dtype == torch.float64
    assert torch.equal(model.fc.weight.float(), other_weights()["fc.weight"])
    assert model.bn.num_batches_tracked == 7
    assert model.fc.weight.requires_grad


def test_old_files_without_the_batch_counter(tmp_path: Path) -> None:
    state = other_weights()
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "old.pt")
    model = Net()
    load_weights(model, tmp_path / "old.pt")
    assert torch.equal(within.tensor(model, "bn.running_var"), state["bn.running_var"])


def rename(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new if name == old else name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: rename(s, "bn.weight", "bn.gamma"),
            "1 missing: bn.weight; 1 unexpected: bn.gamma",
        ),
        (
            lambda s: s | {"fc.weight": torch.ones(4, 9)},
            r"1 of another shape: fc.weight \(file \(4, 9\), model \(4, 3\)\)",
        ),
        (
            lambda s: s | {"fc.bias": torch.ones(4, dtype=torch.int8)},
            r"1 of another type: fc.bias \(file torch.int8",
        ),
        (
            lambda s: s | {"bn.bias": torch.tensor([1.0, 2.0, torch.nan, 4.0])},
            "NaN or infinite weights in bn.bias",
        ),
        (
            lambda s: s | {"bn.bias": torch.full((4,), 1e300, dtype=torch.float64)},
            "infinite weights in bn.bias",
        ),
        (
            lambda s: {f"x{n}": torch.ones(1) for n in range(7)},
            "7 unexpected: x0, x1, x2, x3, x4 and 2 more",
        ),
    ],
)
def test_what_does_not_fit_is_listed_and_the_model_untouched(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, change(other_weights()))
    assert same(model.state_dict(), before)


def test_one_name_of_tied_weights_is_enough() -> None:
    for name in ("embed.weight", "head.weight"):
        model = TiedNet()
        load_weights(model, {name: torch.ones(5, 3)})
        assert model.head.weight is model.embed.weight
        assert torch.equal(model.head.weight, torch.ones(5, 3))


def test_tied_weights_must_agree() -> None:
    model = TiedNet()
    with pytest.raises(
        CheckpointError, match=r"different weights for embed.weight and head.weight"
    ):
        load_weights(model, {"embed.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)})
    load_weights(model, {"embed.weight": torch.ones(5, 3), "head.weight": torch.ones(5, 3)})
    assert model.head.weight.sum() == 15
