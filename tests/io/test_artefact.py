"""Saved networks: they come back equal to the last bit, and what is damaged, foreign or harmful is
refused by name.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import pytest
import torch
import within
import zoo
from timed import take_few
from torch import nn
from torch.utils._pytree import tree_leaves

import niwaki
from niwaki.core.errors import CheckpointError, NiwakiError, OutputError
from niwaki.io.artefact import read_blueprint
from niwaki.methods.mint._layer_dependencies import Estimation
from niwaki.methods.mint.activations import Sampling
from niwaki.methods.mint.blocks import CutOff

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]


def own_factory(width: int = 12) -> nn.Module:
    """An importable factory that says what it makes."""
    return nn.Sequential(nn.Linear(7, width), nn.ReLU(), nn.Linear(width, 4))


def silent_factory(width: int = 12) -> Any:
    return own_factory(width)


def made(folder: Path) -> tuple[niwaki.Result, Path]:
    torch.manual_seed(0)
    model = niwaki.models.build("resnet20").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model), criterion="l1", budget=0.4)
    with pytest.MonkeyPatch.context() as patch:
        take_few(patch)
        return result, niwaki.save(result, folder / "pruned")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[niwaki.Result, Path]:
    return made(tmp_path_factory.mktemp("once"))


@pytest.fixture
def saved(
    made_once: tuple[niwaki.Result, Path], tmp_path: Path, quick_latency: None
) -> tuple[niwaki.Result, Path]:
    """A result that is only read, and a copy of its folder."""
    result, folder = made_once
    return result, Path(shutil.copytree(folder, tmp_path / "pruned"))


@pytest.fixture
def own(tmp_path: Path, quick_latency: None) -> tuple[niwaki.Result, Path]:
    """A result that a test may change."""
    return made(tmp_path)


def outputs(model: nn.Module, inputs: Any) -> list[Any]:
    with torch.no_grad():
        return tree_leaves(niwaki.running.call(model, inputs))


def test_it_comes_back_to_the_last_bit(saved: tuple[niwaki.Result, Path]) -> None:
    result, folder = saved
    again = niwaki.load(folder)
    inputs = niwaki.models.example_inputs(again)
    with torch.no_grad():
        assert torch.equal(again(inputs), result.model(inputs))
    assert type(again) is type(result.model)
    assert not again.training
    assert read_blueprint(folder).factory == "resnet20"  # the network remembered who built it
    assert read_blueprint(folder).steps == (niwaki.Plan(result.plan.units),)


LOAD_ALL = """
import sys, torch, niwaki
from pathlib import Path
for folder in sorted(Path(sys.argv[1]).iterdir()):
    model = niwaki.load(folder / "net", trust="zoo")
    inputs, wanted = torch.load(folder / "outputs.pt", weights_only=False)  # the test's own file
    import test_artefact
    got = test_artefact.outputs(model, inputs)
    same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(wanted, got) if isinstance(a, torch.Tensor))
    print(folder.name, "equal" if same and len(wanted) == len(got) else "DIFFERENT")
"""


def test_every_model_of_the_zoo_comes_back_in_a_new_process(
    tmp_path: Path, quick_latency: None
) -> None:
    names = []
    for name in zoo.MODELS:
        model = zoo.build(name)
        try:
            result = niwaki.prune(model, zoo.inputs(model, 1), criterion="l1", compensation="none")
        except NiwakiError:
            continue  # that it is refused, and why, is tested with the zoo
        niwaki.save(result, tmp_path / name / "net", model=f"zoo:build:name='{name}'")
        inputs = zoo.inputs(model, 2)
        wanted = outputs(result.model, copy.deepcopy(inputs))
        torch.save(
            (inputs, [a if isinstance(a, torch.Tensor) else None for a in wanted]),
            tmp_path / name / "outputs.pt",
        )
        names.append(name)
    assert len(names) > len(zoo.MODELS) * 0.9
    done = python("-c", LOAD_ALL, str(tmp_path))
    assert done.stdout.split("\n")[:-1] == [f"{name} equal" for name in sorted(names)], done.stderr


def python(*words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(
        [
            str(ROOT / "src"),
            str(ROOT / "tests"),
            str(ROOT / "tests" / "io"),
            str(ROOT / "benchmarks"),
        ]
    )
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=300,
    )


def test_memory_layout_and_precision_come_back(tmp_path: Path, quick_latency: None) -> None:
    model = niwaki.models.build("digits-cnn").double().eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch lacks it
    inputs = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    result = niwaki.prune(model, inputs)
    again = niwaki.load(niwaki.save(result, tmp_path / "a"))
    for mine, other in zip(result.model.parameters(), again.parameters(), strict=True):
        assert mine.dtype == other.dtype == torch.float64
        assert mine.stride() == other.stride()


def test_a_network_pruned_twice_comes_back_from_its_original(
    own: tuple[niwaki.Result, Path], tmp_path: Path
) -> None:
    first, folder = own
    x = niwaki.models.example_inputs(first.model)
    for start in (first.model, niwaki.load(folder)):  # in one process, and after a save
        second = niwaki.prune(start, x, criterion="l2", budget=0.5)
        third = niwaki.prune(second.model, x, criterion="l1", budget=0.2, only="layer3*")
        again = niwaki.load(niwaki.save(third, tmp_path / "thrice", overwrite=True))
        with torch.no_grad():
            assert torch.equal(again(x), third.model(x))
        steps = read_blueprint(tmp_path / "thrice").steps
        assert [dict(step.units) for step in steps] == [
            dict(r.plan.units) for r in (first, second, third)
        ]
    assert niwaki.count_params(third.model) < 0.5 * niwaki.count_params(first.model)


def test_training_after_pruning_is_saved(own: tuple[niwaki.Result, Path], tmp_path: Path) -> None:
    result, _ = own
    model = result.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = niwaki.models.example_inputs(model, batch=4)
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    again = niwaki.load(niwaki.save(result, tmp_path / "tuned"))
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))


def test_it_comes_back_with_the_original_in_hand(saved: tuple[niwaki.Result, Path]) -> None:
    result, folder = saved
    original = niwaki.models.build("resnet20")
    params = niwaki.count_params(original)
    for given in (original, lambda: niwaki.models.build("resnet20"), "resnet20"):
        assert niwaki.count_params(niwaki.load(folder, model=given)) == result.record.after.params
    assert niwaki.count_params(original) == params  # what was handed over is not changed


def test_it_loads_where_niwaki_is_not_installed(
    saved: tuple[niwaki.Result, Path], tmp_path: Path
) -> None:
    result, folder = saved
    x = niwaki.models.example_inputs(result.model)
    with torch.no_grad():
        torch.save((niwaki.models.build("resnet20"), x, result.model(x)), tmp_path / "given.pt")
    script = (
        "import sys, torch; original, x, wanted = torch.load('../given.pt', weights_only=False)\n"
        "for name in [name for name in sys.modules if name.startswith('niwaki')]: del "
        "sys.modules[name]\n"
        "sys.modules['niwaki'] = None\n"  # importing it from here on fails
        "from load_without_niwaki import load_pruned\n"
        "with torch.no_grad(): print(torch.equal(load_pruned('.', original)(x), wanted))"
    )
    done = python("-c", script, cwd=folder)
    assert done.stdout == "True\n", done.stderr
    assert len((folder / "load_without_niwaki.py").read_text().splitlines()) < 220


def test_layers_of_blocks_load_where_niwaki_is_not_installed(
    tmp_path: Path, quick_latency: None
) -> None:
    torch.manual_seed(0)
    model = niwaki.models.build("digits-cnn").eval()
    x = niwaki.models.example_inputs(model)
    calibration = niwaki.Calibration.labelled([(torch.rand(60, 1, 8, 8), torch.arange(60) % 10)])
    estimation = Estimation(4, sampling=Sampling(6))
    result = niwaki.trim(
        model, x, calibration=calibration, estimation=estimation, cut_off=CutOff(params=0.7)
    )
    held = [type(layer).__name__ for layer in result.model.modules() if hasattr(layer, "blocks")]
    assert set(held) == {"BlockConv2d", "BlockLinear"}
    folder = niwaki.save(result, tmp_path / "trimmed")
    with torch.no_grad():
        torch.save((niwaki.models.build("digits-cnn"), x, result.model(x)), tmp_path / "given.pt")
    script = (
        "import sys, torch; original, x, wanted = torch.load('../given.pt', weights_only=False)\n"
        "for name in [name for name in sys.modules if name.startswith('niwaki')]: del "
        "sys.modules[name]\n"
        "sys.modules['niwaki'] = None\n"
        "from load_without_niwaki import load_pruned\n"
        "with torch.no_grad(): torch.testing.assert_close(load_pruned('.', original)(x), wanted, "
        "rtol=1e-4, atol=1e-6)\n"
        "print(type(original.conv2).__name__, type(original.fc1).__name__, sys.modules['niwaki'])"
    )
    done = python("-c", script, cwd=folder)
    assert done.stdout == "Conv2d Linear None\n", done.stderr
    assert (
        "ordinary ones there, with zeros where a block is gone"
        in (folder / "README.md").read_text()
    )


def test_the_model_card_has_the_table(saved: tuple[niwaki.Result, Path]) -> None:
    result, folder = saved
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch")
    assert (
        f"| parameters | {result.record.before.params:,} | {result.record.after.params:,} |" in card
    )
    assert "niwaki.load('pruned')" in card


def test_a_factory_of_ones_own_is_named_with_its_arguments(
    tmp_path: Path, quick_latency: None
) -> None:
    result = niwaki.prune(own_factory(20).eval(), torch.randn(2, 7))
    folder = niwaki.save(
        result, tmp_path / "a", model="test_artefact:own_factory", arguments={"width": 20}
    )
    assert niwaki.count_params(niwaki.load(folder)) == result.record.after.params
    with pytest.raises(CheckpointError, match="does not build the original"):
        niwaki.save(result, tmp_path / "b", model="test_artefact:own_factory")
    assert not (tmp_path / "b").exists()
    folder = niwaki.save(result, tmp_path / "c")  # no factory is known
    with pytest.raises(CheckpointError, match="does not name the factory"):
        niwaki.load(folder)


def test_a_network_changed_since_it_was_built_is_saved_without_its_factory(
    own: tuple[niwaki.Result, Path], tmp_path: Path
) -> None:
    model = own[0].model
    model.fc = nn.Sequential(nn.Dropout(0.1), within.layer(model, "fc"))  # a new head
    with pytest.warns(UserWarning, match="names no factory"):
        folder = niwaki.save(own[0], tmp_path / "new-head")
    assert read_blueprint(folder).factory is None


def test_a_factory_that_does_not_say_what_it_makes_must_be_given(
    tmp_path: Path, quick_latency: None
) -> None:
    result = niwaki.prune(own_factory().eval(), torch.randn(2, 7))
    folder = niwaki.save(result, tmp_path / "a", model="test_artefact:own_factory")
    rewrite(folder, lambda plan: plan.update(factory="test_artefact:silent_factory"))
    with pytest.raises(
        CheckpointError, match=r"does not say that it returns an nn\.Module.*load\(folder, model="
    ):
        niwaki.load(folder)
    assert (
        niwaki.count_params(niwaki.load(folder, "test_artefact:silent_factory"))
        == result.record.after.params
    )


LIBRARIES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "resnet18": ("timm:resnet18:num_classes=7", {}, lambda: torch.randn(2, 3, 64, 64)),
    "mobilenetv3": (
        "timm:mobilenetv3_small_050:num_classes=7",
        {},
        lambda: torch.randn(2, 3, 64, 64),
    ),
    "vit": (
        "timm:vit_tiny_patch16_224:num_classes=7,depth=2,img_size=64",
        {},
        lambda: torch.randn(2, 3, 64, 64),
    ),
    "bert": (
        "transformers:BertForSequenceClassification",
        {
            "config": {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "intermediate_size": 48,
                "vocab_size": 99,
            }
        },
        lambda: {"input_ids": torch.randint(99, (2, 9))},
    ),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_timm_and_transformers_come_back_as_such(
    name: str, tmp_path: Path, quick_latency: None
) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec, arguments, make = LIBRARIES[name]
    try:
        import torchvision_cpu  # noqa: F401  # where torchvision's extension does not load

        model = niwaki.models.build(spec, arguments=arguments).eval()
    except (ImportError, NiwakiError) as error:
        pytest.skip(str(error))
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    inputs = make()
    result = niwaki.prune(model, inputs)
    folder = niwaki.save(result, tmp_path / "a")
    again = niwaki.load(folder)
    assert type(again) is type(model)
    assert all(map(torch.equal, outputs(again, inputs), outputs(result.model, inputs)))
    factory = read_blueprint(folder).factory
    assert factory is not None
    assert factory.startswith(spec.partition(":")[0])


def test_another_model_is_refused(saved: tuple[niwaki.Result, Path]) -> None:
    for other in (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)),
        niwaki.models.build("resnet32"),
        saved[0].model,
    ):
        with pytest.raises(CheckpointError, match="another model"):
            niwaki.load(saved[1], model=other)


def test_a_model_that_was_not_pruned_is_refused(
    saved: tuple[niwaki.Result, Path], tmp_path: Path
) -> None:
    other = dataclasses.replace(saved[0], model=niwaki.models.build("resnet20"))
    with pytest.raises(CheckpointError, match="not a network that niwaki pruned"):
        niwaki.save(other, tmp_path / "other")


def test_a_graph_of_operators_is_refused_and_can_be_exported(
    tmp_path: Path, quick_latency: None
) -> None:
    model = zoo.build("ConvNoBias")
    result = niwaki.prune(model, zoo.inputs(model, 1), compensation="none", form="graph")
    with pytest.raises(CheckpointError, match="is a graph of operators"):
        niwaki.save(result, tmp_path / "graph")
    exported = niwaki.export_program(result.model, zoo.inputs(model, 1), tmp_path / "graph.pt2")
    assert exported.difference < 1e-5


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors", "record.json", "manifest.json"])
def test_any_changed_byte_and_any_missing_file_is_named(
    saved: tuple[niwaki.Result, Path], name: str
) -> None:
    path = saved[1] / name
    content = path.read_bytes()
    for at in (0, len(content) // 3, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=r"manifest\.json|was changed"):
            niwaki.load(saved[1])
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name):
        niwaki.load(saved[1])
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        niwaki.load(saved[1])


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change plan.json on purpose, with the hash made to fit."""
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))
    damage.rehash(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(schema=4), "newer niwaki"),
        (lambda p: p.update(schema=1), "save it again"),
        (lambda p: p.update(schema="2"), "schema number"),
        (lambda p: p.update(extra=1), "too much: extra"),
        (lambda p: p.pop("steps"), "lacks or has too much: steps"),
        (lambda p: p["steps"][0]["layer1.0.conv1"].update(kept=[0, 99]), r"layer1\.0\.conv1"),
        (
            lambda p: p["tensors"].update({"conv1.weight": [[16, 3, 3, 3], [2**62, 3, 3, 3]]}),
            "before and after a pruning",
        ),
        (
            lambda p: p["tensors"].update({"conv1.weight": [[2**30] * 9, [1] * 9]}),
            "before and after a pruning",
        ),
        (lambda p: p["tensors"].update({"../../x": [[4], [2]]}), "another model"),
        (lambda p: p["attributes"].update({"": {"forward": [1, 2]}}), "another model"),
        (lambda p: p["attributes"].update({"conv1": {"__dict__": [1, 2]}}), "another model"),
        (
            lambda p: p["attributes"].update({"conv1": {"kernel_size": [[3, 3], [10**30, 1]]}}),
            "before and after a pruning",
        ),
        (lambda p: p.update(factory="resnet32"), "another model"),
        (lambda p: p.update(factory="resnet2O"), "resnet20"),
        (
            lambda p: p.update(factory="os:system", arguments={"command": "touch pwned"}),
            "Python's own code",
        ),
        (
            lambda p: p.update(
                factory="torch.hub:load", arguments={"repo_or_dir": "a/b", "model": "c"}
            ),
            "torch's own",
        ),
        (lambda p: p.update(factory="nowhere.nets:build"), "cannot import"),
        (lambda p: p.update(arguments={"classes": 10**9}), "no network has"),
        (lambda p: p.update(arguments={"classes": 2**23}), "far larger|of 536"),
        (lambda p: p.update(arguments={"pretrained": True}), "fetch"),
        (lambda p: p.update(factory="timm:hf-hub:evil/x", arguments={}), "evil/x|timm"),
    ],
)
def test_a_plan_with_what_cannot_be_is_refused(
    saved: tuple[niwaki.Result, Path], change: Any, said: str
) -> None:
    rewrite(saved[1], change)
    with damage.watched() as events, pytest.raises(CheckpointError, match=said):
        niwaki.load(saved[1])
    assert events == []


def test_names_in_the_manifest_are_no_paths(saved: tuple[niwaki.Result, Path]) -> None:
    path = saved[1] / "manifest.json"
    data = json.loads(path.read_text())
    data["files"]["../../outside"] = data["files"]["plan.json"]
    path.write_text(json.dumps(data, indent=2) + "\n")
    with pytest.raises(CheckpointError, match="nothing else"):
        niwaki.load(saved[1])


def test_code_beside_the_weights_is_not_run(
    saved: tuple[niwaki.Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved[1] / "evil.py").write_text(
        "import torch\nopen('pwned', 'w')\ndef build() -> torch.nn.Module: ...\n"
    )
    rewrite(saved[1], lambda plan: plan.update(factory="evil:build", arguments={}))
    monkeypatch.chdir(saved[1])
    with pytest.raises(CheckpointError, match="evil"):
        niwaki.load(saved[1])
    assert not (saved[1] / "pwned").exists()


def test_deeply_nested_json_is_an_error_and_no_crash(saved: tuple[niwaki.Result, Path]) -> None:
    (saved[1] / "plan.json").write_text("[" * 100_000)
    damage.rehash(saved[1])
    with pytest.raises(CheckpointError, match="not JSON"):
        niwaki.load(saved[1])


def test_weights_with_nan_are_refused(own: tuple[niwaki.Result, Path], tmp_path: Path) -> None:
    with torch.no_grad():
        within.tensor(own[0].model, "conv1.weight")[0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        niwaki.save(own[0], tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_a_full_disk_leaves_what_was_there(
    saved: tuple[niwaki.Result, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("niwaki.io.artefact.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        niwaki.save(saved[0], saved[1], overwrite=True)
    monkeypatch.undo()
    assert niwaki.count_params(niwaki.load(saved[1])) == saved[0].record.after.params
    assert [path.name for path in saved[1].parent.iterdir()] == [saved[1].name]


def test_nothing_is_replaced_unasked(saved: tuple[niwaki.Result, Path]) -> None:
    with pytest.raises(OutputError, match="overwrite"):
        niwaki.save(saved[0], saved[1])
    niwaki.save(saved[0], saved[1], model="resnet20", overwrite=True)
    assert niwaki.count_params(niwaki.load(saved[1])) == saved[0].record.after.params


def test_fuzzed_folders_are_refused_and_nothing_else_happens(
    tmp_path: Path, quick_latency: None
) -> None:
    """The long version: benchmarks/fuzz_artefact.py."""
    model = niwaki.models.build("digits-cnn").eval()
    result = niwaki.prune(model, niwaki.models.example_inputs(model))
    folder = niwaki.save(result, tmp_path / "saved")
    place = tmp_path / "place"
    place.mkdir()
    table = damage.run(folder, place, range(300), niwaki.load, NiwakiError)
    assert sum(sum(outcomes.values()) for outcomes in table.values()) == 300
    for kind in ("bytes", "missing", "manifest"):
        assert "loaded" not in table[kind], table
