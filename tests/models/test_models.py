"""Networks by name, and by import string."""

import re
import sys
from pathlib import Path

import pytest
import torch
import within
from torch import nn

from niwaki import models
from niwaki.core.errors import NiwakiError, SettingError, UnknownNameError
from niwaki.models.resnet import ResNet
from niwaki.models.wide_resnet import WideResNet

# name → parameters; where sums are written out, layer by layer (published: 0.27, 0.46, 0.66, 0.85,
# 1.7 and 8.9 million)
PARAMETERS = {
    "lenet-300-100": 785 * 300 + 301 * 100 + 101 * 10,
    "mnist-mlp": 785 * 500 + 501 * 300 + 301 * 10,
    "vgg16": 14_724_042,
    "vgg16:classifier=two-layer": 14_724_042 - 5130 + 513 * 512 + 2 * 512 + 5130,
    "vgg-small": 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    + 2 * 432
    + (128 * 4 + 1) * 10,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet56:shortcut=projection": 853_018 + 16 * 32 + 64 + 32 * 64 + 128,
    "resnet110": 1_727_962,
    "wide-resnet-40-4": 8_949_210,
    "digits-cnn": 90_090,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_listed_model_is_counted_here() -> None:
    assert {spec.partition(":")[0] for spec in PARAMETERS} == set(models.available())


@pytest.mark.parametrize("spec", PARAMETERS)
def test_size_and_output(spec: str) -> None:
    torch.manual_seed(0)
    model = models.build(spec)
    assert model.training
    assert parameters(model) == PARAMETERS[spec]
    inputs = models.example_inputs(model.eval())
    assert isinstance(inputs, torch.Tensor)
    assert tuple(inputs.shape[1:]) == model.input_shape
    with torch.no_grad():
        outputs = model(inputs)
    assert outputs.shape == (2, 10)
    assert outputs.isfinite().all()
    assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize(
    "spec", ["lenet-300-100", "vgg16:classifier=two-layer", "resnet20", "wide-resnet-40-4"]
)
def test_trains(spec: str) -> None:
    model = models.build(spec, classes=3)
    model(models.example_inputs(model)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_seed_decides_the_weights() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return within.tensor(models.build("resnet20"), "conv1.weight")

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_convolutions_start_as_rni_says() -> None:
    torch.manual_seed(0)
    weight = within.tensor(models.build("vgg16"), "features.conv5.weight")
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


def test_the_data_fills_what_the_spec_leaves_open() -> None:
    model = models.build("resnet20:shortcut=projection", classes=100, in_channels=1, image_size=8)
    assert within.size(model, "fc.out_features") == 100
    inputs = models.example_inputs(model, batch=3)
    assert isinstance(inputs, torch.Tensor)
    assert inputs.shape == (3, 1, 8, 8)
    with pytest.raises(SettingError, match="states classes=5, but the data has 10"):
        models.build("resnet20:classes=5", classes=10)


def test_vgg_takes_larger_images() -> None:
    model = models.build("vgg16:image_size=64,classes=4").eval()
    with torch.no_grad():
        assert model(models.example_inputs(model, batch=1)).shape == (1, 4)
    assert within.size(model, "classifier.linear1.in_features") == 512 * 4


def test_zero_padding_shortcut_adds_channels_on_both_sides() -> None:
    shortcut = models.PaddedShortcut(stride=2, padding=(1, 2))
    x = torch.rand(2, 3, 5, 5)
    out = shortcut(x)
    assert out.shape == (2, 6, 3, 3)
    assert torch.equal(out[:, 1:4], x[:, :, ::2, ::2])
    assert out[:, [0, 4, 5]].count_nonzero() == 0
    assert shortcut.padding == (1, 2)
    assert [
        module.padding
        for module in models.build("resnet20").modules()
        if isinstance(module, type(shortcut))
    ] == [
        (8, 8),
        (16, 16),
    ]


def test_a_narrower_copy_runs_as_it_is() -> None:
    model = models.build("resnet20").eval()
    block = within.layer(model, "layer2.0")
    block.conv1, block.bn1 = (
        nn.Conv2d(16, 5, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(5).eval(),
    )
    block.conv2 = nn.Conv2d(5, 32, 3, padding=1, bias=False)
    with torch.no_grad():
        assert model(models.example_inputs(model)).shape == (2, 10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet57", "did you mean 'resnet"),
        ("vgg16:clasifier=linear", "did you mean 'classifier'"),
    ],
)
def test_unknown_names_are_met_with_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        models.build(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vgg16:classifier=three", "classifier is one of linear, two-layer"),
        ("resnet20:classes=0", "classes must be at least 1"),
        ("resnet20:classes=ten", "must be int"),
        ("vgg16:image_size=16", "at least 32"),
        ("mnist-mlp:dropout=1", r"\[0, 1\)"),
        ("resnet20:", "ends in a colon"),
        ("some.module", "names no factory"),
    ],
)
def test_bad_settings_are_refused(spec: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        models.build(spec)


def test_impossible_depths_are_refused() -> None:
    with pytest.raises(SettingError, match=re.escape("6·n + 2")):
        ResNet((3, 32, 32), 10, 21, "padding")
    with pytest.raises(SettingError, match=re.escape("6·n + 4")):
        WideResNet((3, 32, 32), 10, 41, 4)


USERS_MODULE = """
from torch import nn
limit = 3
def net(num_classes=7, bias=True, mode="none"):
    model = nn.Linear(4, num_classes, bias=bias)
    model.mode = mode
    return model
def plain(): return nn.Linear(4, 2)
def broken(): raise RuntimeError("no such luck")
def number(): return 3
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "garden_of_mine.py").write_text(USERS_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "garden_of_mine", raising=False)


@pytest.mark.usefixtures("users_module")
def test_import_string_from_the_current_folder() -> None:
    assert models.build("garden_of_mine:net").out_features == 7
    model = models.build("garden_of_mine:net:num_classes=5,bias=False,mode=fast")
    assert within.size(model, "out_features") == 5
    assert model.bias is None
    assert within.part(model, "mode", str) == "fast"


@pytest.mark.usefixtures("users_module")
def test_a_factory_is_given_what_it_names() -> None:
    assert models.build("garden_of_mine:net", classes=9, image_size=32).out_features == 9
    assert models.build("garden_of_mine:plain", classes=9).out_features == 2
    with pytest.raises(SettingError, match="states num_classes=5, but the data has 9"):
        models.build("garden_of_mine:net:num_classes=5", classes=9)


@pytest.mark.usefixtures("users_module")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_garden.trees:net", "cannot import 'no_such_garden.trees'.*installed.*PYTHONPATH"),
        ("garden_of_mine:nett", "unknown factory in 'garden_of_mine' 'nett'; did you mean 'net'"),
        ("garden_of_mine:limit", "is a int, not a function or class"),
        ("garden_of_mine:broken", r"broken\(\) failed: RuntimeError: no such luck"),
        ("garden_of_mine:number", "returned a int, not a torch.nn.Module"),
        ("garden_of_mine:net:depth=3", r"net\(depth=3\) failed: TypeError"),
    ],
)
def test_failed_import_strings_say_what_failed(spec: str, message: str) -> None:
    with pytest.raises(NiwakiError, match=message):
        models.build(spec)


def test_example_inputs_need_a_known_shape() -> None:
    with pytest.raises(SettingError, match=r"set model.input_shape"):
        models.example_inputs(nn.Linear(2, 2))
