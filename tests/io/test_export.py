"""Files for other runtimes: they compute the same, for any batch, and shrink as the network did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from needed import needs
from torch import nn

import niwaki
from niwaki.core.errors import ExportError, MissingExtraError, NiwakiError
from niwaki.io.session import OnnxClassifier

needs("onnxscript", "onnxruntime")
pytestmark = pytest.mark.usefixtures("quick_latency", "one_thread")


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[nn.Module, nn.Module, torch.Tensor, Path]:
    """A network, a pruned one, and a folder with both as ONNX."""
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn:classes=10").eval()
    x = niwaki.models.example_inputs(model)
    assert isinstance(x, torch.Tensor)
    pruned = niwaki.prune(model, x, budget=0.5).model
    folder = tmp_path_factory.mktemp("onnx")
    niwaki.export_onnx(model, x, folder / "whole.onnx")
    niwaki.export_onnx(pruned, x, folder / "pruned.onnx")
    return model, pruned, x, folder


def test_onnx_computes_the_same_for_any_batch(
    pair: tuple[nn.Module, nn.Module, torch.Tensor, Path],
) -> None:
    _, pruned, x, folder = pair
    runtime = OnnxClassifier(folder / "pruned.onnx")
    for size in (1, 2, 7):
        inputs = torch.randn(size, *x.shape[1:])
        with torch.no_grad():
            assert torch.allclose(runtime(inputs), pruned(inputs), atol=1e-5)


def test_the_onnx_file_shrinks_as_the_network_did(
    pair: tuple[nn.Module, nn.Module, torch.Tensor, Path],
) -> None:
    model, pruned, _, folder = pair
    graph = 20_000  # bytes of what is no weight, at most
    for network, name in ((model, "whole"), (pruned, "pruned")):
        size = (folder / f"{name}.onnx").stat().st_size
        assert 0 < size - niwaki.count_bytes(network) < graph
    assert (folder / "pruned.onnx").stat().st_size < 0.45 * (folder / "whole.onnx").stat().st_size


def test_a_program_computes_the_same_where_niwaki_is_not_installed(
    pair: tuple[nn.Module, nn.Module, torch.Tensor, Path], tmp_path: Path
) -> None:
    _, pruned, x, _ = pair
    exported = niwaki.export_program(pruned, x, tmp_path / "model.pt2")
    assert exported.difference < 1e-6
    assert len(exported.batches) == 2
    with torch.no_grad():
        torch.save((x, pruned(x)), tmp_path / "given.pt")
    script = (
        "import sys; sys.modules['niwaki'] = None\n"
        "import torch; x, wanted = torch.load('given.pt')\n"
        "print(torch.allclose(torch.export.load('model.pt2').module()(x), wanted, atol=1e-5))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "TwoInputsByName",
        "TwoInputs",
        "DepthwiseBlock",
        "EncoderLayer",
        "OutputTwice",
        "BareParameter",
    ],
)
def test_networks_with_traps_are_exported_after_pruning(name: str, tmp_path: Path) -> None:
    model = zoo.build(name)
    inputs = zoo.inputs(model, 1)
    pruned = niwaki.prune(model, inputs, compensation="none").model
    exported = niwaki.export_program(pruned, inputs, tmp_path / "model.pt2")
    assert exported.difference < 1e-5
    if name in ("TwoInputsByName", "EncoderLayer"):  # the onnx exporter takes seconds a network
        assert niwaki.export_onnx(pruned, inputs, tmp_path / "model.onnx").difference < 1e-5


def test_int8_is_smaller_and_near(
    pair: tuple[nn.Module, nn.Module, torch.Tensor, Path], tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    folder = pair[3]
    batches = [
        inputs for inputs, _ in niwaki.data.load("digits").split("train").batches(100, limit=300)
    ]
    exported = niwaki.quantise_onnx(folder / "whole.onnx", tmp_path / "int8.onnx", batches)
    assert exported.bytes < 0.5 * (folder / "whole.onnx").stat().st_size
    assert exported.difference < 0.2
    with pytest.raises(ExportError, match="calibration inputs"):
        niwaki.quantise_onnx(folder / "whole.onnx", tmp_path / "none.onnx", [])


def test_a_network_that_cannot_be_exported_is_refused_and_left_alone(tmp_path: Path) -> None:
    class ReadsValues(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            while x.sum().item() > 1:
                x = self.layer(x)
            return x

    model = ReadsValues().train()
    with pytest.raises(ExportError, match="cannot export ReadsValues"):
        niwaki.export_program(model, torch.ones(2, 3), tmp_path / "model.pt2")
    assert model.training
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        """Its output depends on chance."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(1).to(x) if not torch.compiler.is_compiling() else x

    with pytest.raises(ExportError, match="differs by"):
        niwaki.export_program(Noisy(), torch.ones(2, 3), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"niwaki\[export\]"):
        niwaki.export_onnx(nn.Linear(2, 2), torch.ones(2, 2), tmp_path / "model.onnx")


def test_export_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from niwaki.cli.app import main

    torch.manual_seed(0)
    model = niwaki.models.build("lenet-300-100").eval()
    niwaki.save(niwaki.prune(model, niwaki.models.example_inputs(model)), tmp_path / "pruned")
    for words in (
        ("export", tmp_path / "pruned", "--format", "pt2", "--out", tmp_path / "deploy", "--json"),
        ("export", tmp_path / "pruned", "--format", "tflite", "--out", tmp_path / "other"),
        ("export", tmp_path / "pruned", "--format", "int8", "--out", tmp_path / "other"),
    ):
        monkeypatch.setattr(sys, "argv", ["niwaki", *map(str, words)])
        with pytest.raises(SystemExit):
            main()
    assert sorted(path.name for path in (tmp_path / "deploy").iterdir()) == [
        ".niwaki",
        "export.json",
        "model.pt2",
    ]
    assert not (tmp_path / "other").exists()
    said = capsys.readouterr()
    assert '"difference"' in said.out
    assert "unknown format 'tflite'" in said.err
    assert issubclass(ExportError, NiwakiError)


class Picky(nn.Module):
    """Takes some batch sizes only."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts, self.a, self.b = parts, nn.Linear(6, 32), nn.Linear(32, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (
            self.b(torch.relu(self.a(x))).softmax(1).reshape(self.parts, -1, 7).mean(0)
        )
        return out


@pytest.mark.parametrize(("parts", "batch"), [(4, 8), (2, 2), (3, 6), (5, 5)])
@pytest.mark.parametrize("how", [niwaki.export_onnx, niwaki.export_program])
def test_a_network_of_few_batch_sizes_gets_a_file_for_those(
    how: Any, parts: int, batch: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    found = how(Picky(parts).eval(), torch.randn(batch, 6), tmp_path / "file")
    assert found.step in (parts, 1)
    assert found.batches in ((batch, batch + parts), (batch,))
    assert (tmp_path / "file").stat().st_size == found.bytes


class One(nn.Module):
    """Takes one sample alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(torch.relu(self.a(x.view(6))))
        return out


@pytest.mark.parametrize("how", [niwaki.export_onnx, niwaki.export_program])
def test_a_network_of_one_batch_size_gets_a_file_for_it(how: Any, tmp_path: Path) -> None:
    found = how(One().eval(), torch.randn(1, 6), tmp_path / "file")
    assert (found.batches, found.step) == ((1,), 1)
