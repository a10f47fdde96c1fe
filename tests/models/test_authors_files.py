"""Files of the papers' own classes: networks that are ours by another name give our outputs."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import within
from safetensors.torch import save_file
from torch import Tensor, nn

import niwaki
from niwaki import models
from niwaki.core.errors import CheckpointError
from niwaki.methods.rni.convert import with_sigmoid_batchnorm
from niwaki.models.renaming import renamed
from niwaki.models.vgg import STAGES

pytestmark = pytest.mark.usefixtures("one_thread")


def shaken(model: nn.Module) -> nn.Module:
    """With statistics and factors of every channel's own, so that an exchange would show."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.normal_(0.3, 0.3)
    return model.eval()


def vgg_features(bias: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for stage, widths in enumerate(STAGES):
        for width in widths:
            convolution = nn.Conv2d(before, width, 3, padding=1, bias=bias)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers += [nn.MaxPool2d(2)] if stage < 4 else []
    return layers


class MergingVgg(nn.Module):
    """Neuron Merging's: `feature.0`, an average at the end, `classifier.0`."""

    def __init__(self) -> None:
        super().__init__()
        self.feature = nn.Sequential(*vgg_features(bias=False))
        hidden = [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10)]
        self.classifier = nn.Sequential(*hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(F.avg_pool2d(self.feature(x), 2).flatten(1))
        return out


class RniVgg(nn.Module):
    """RNI's: convolutions with biases, as torchvision has them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*vgg_features(bias=True))
        self.avgpool = nn.AvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return out


class MintVgg(nn.Module):
    """MINT's: one flat list of names, a maximum at the end."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [
            part for part in vgg_features(False) if isinstance(part, (nn.Conv2d, nn.BatchNorm2d))
        ]
        for number in range(1, 14):
            self.add_module(f"conv{number}", convolutions[2 * number - 2])
            self.add_module(f"bn{number}", convolutions[2 * number - 1])
        self.linear1 = nn.Linear(512, 512)
        self.bn14 = nn.BatchNorm1d(512)
        self.linear3 = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, 14):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
            x = F.max_pool2d(x, 2) if number in (2, 4, 7, 10, 13) else x
        out: Tensor = self.linear3(F.relu(self.bn14(self.linear1(x.flatten(1)))))
        return out


class RniBlock(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.grows = before != width
        named = [
            ("conv1", nn.Conv2d(before, width, 3, 1 + self.grows, 1, bias=False)),
            ("bn1", nn.BatchNorm2d(width)),
            ("relu1", nn.ReLU()),
            ("conv2", nn.Conv2d(width, width, 3, 1, 1, bias=False)),
            ("bn2", nn.BatchNorm2d(width)),
        ]
        self.residual = nn.Sequential(OrderedDict(named))

    def forward(self, x: Tensor) -> Tensor:
        extra = x.shape[1] // 2
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra)) if self.grows else x
        return F.relu(self.residual(x) + shortcut)


def rni_resnet() -> nn.Sequential:
    """RNI's ResNet-56: a plain sequence, no ReLU after the first convolution."""
    widths = [16] * 10 + [32] * 9 + [64] * 9
    blocks = [RniBlock(before, width) for before, width in pairwise(widths)]
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(stem, *blocks, end)


class WideBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = (
            nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None
        )

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(self.bn1(x))
        inner = self.conv2(F.relu(self.bn2(self.conv1(rectified))))
        out: Tensor = inner + (x if self.convShortcut is None else self.convShortcut(rectified))
        return out


class WideStage(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        rest = [WideBlock(width, width, 1) for _ in range(5)]
        self.layer = nn.Sequential(WideBlock(before, width, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class MergingWideResNet(nn.Module):
    """Neuron Merging's WideResNet-40-4: `block1.layer.0.convShortcut`, `bn1` at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(16, 64, 1)
        self.block2 = WideStage(64, 128, 2)
        self.block3 = WideStage(128, 256, 2)
        self.bn1 = nn.BatchNorm2d(256)
        self.fc = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        out: Tensor = self.fc(F.adaptive_avg_pool2d(F.relu(self.bn1(x)), 1).flatten(1))
        return out


AUTHORS = {
    "vgg16:classifier=two-layer,pool=average": MergingVgg,
    "vgg16:classifier=two-layer": MintVgg,
    "vgg16": RniVgg,
    "resnet56:stem=linear": rni_resnet,
    "wide-resnet-40-4": MergingWideResNet,
}


@pytest.mark.parametrize("spec", AUTHORS)
def test_a_file_of_the_authors_class_is_our_network(spec: str, tmp_path: Path) -> None:
    theirs = shaken(AUTHORS[spec]())
    path = tmp_path / "theirs.pth.tar"
    torch.save({"acc": 93.0, "state_dict": theirs.state_dict()}, path)
    ours = models.build(spec).eval()
    with pytest.warns(UserWarning, match="matched by shape and order"):
        found = niwaki.load_weights(ours, path)
    assert found is not None
    assert len(found.folded) == (13 if spec == "vgg16" else 0)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = theirs(x)
        torch.testing.assert_close(ours(x), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max())


def test_sigmoid_batchnorm_takes_a_file_without_shifts() -> None:
    theirs = shaken(RniVgg()).state_dict()
    signed = {name: tensor for name, tensor in theirs.items() if not _is_shift(name, theirs)}
    ours = with_sigmoid_batchnorm(models.build("vgg16")).eval()
    with pytest.warns(UserWarning, match="13 biases went into the BatchNorm behind them"):
        niwaki.load_weights(ours, signed)
    key = "features.1.running_mean"
    wanted = theirs[key] - theirs["features.0.bias"]
    assert torch.equal(ours.state_dict()["features.bn1.running_mean"], wanted)


def _is_shift(name: str, state: dict[str, Tensor]) -> bool:
    layer, _, word = name.rpartition(".")
    return word == "bias" and f"{layer}.running_mean" in state


def test_names_that_fit_are_taken_by_name_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    model = models.build("vgg16")
    assert niwaki.load_weights(model, models.build("vgg16").state_dict()) is None
    assert not recwarn.list


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"0.weight": (2, 3), "2.weight": (2, 2)}, "layer 2 of the file, '2', has weight"),
        ({"0.weight": (2, 3)}, "the file has 1 layers with weights and the model 2"),
        ({"fc.weight": (2, 3), "conv.weight": (4, 2)}, "'fc' of the file would be 'conv'"),
        ({"0.weight": (2, 3), "0.bias": (2,), "2.weight": (4, 2)}, "has weight .2, 3., bias"),
    ],
)
def test_what_is_ambiguous_is_refused(given: dict[str, tuple[int, ...]], said: str) -> None:
    own = {"conv.weight": torch.zeros(2, 3), "fc.weight": torch.zeros(4, 2)}
    with pytest.raises(CheckpointError, match=said):
        renamed(own, {name: torch.zeros(shape) for name, shape in given.items()})


def test_a_file_without_an_order_and_a_bias_without_a_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(MergingVgg().state_dict(), path)
    with pytest.raises(CheckpointError, match="missing: features"):
        niwaki.load_weights(models.build("vgg16:classifier=two-layer"), path)
    own = {"conv.weight": torch.zeros(2, 3, 1, 1), "fc.weight": torch.zeros(4, 2)}
    given = {"0.weight": torch.zeros(2, 3, 1, 1), "0.bias": torch.ones(2)}
    with pytest.raises(CheckpointError, match="no BatchNorm comes right behind it"):
        renamed(own, {**given, "2.weight": torch.zeros(4, 2)})


def test_the_last_pool_and_the_stem_are_settings() -> None:
    for spec, kind in (
        ("vgg16", nn.AvgPool2d),
        ("vgg16:classifier=two-layer", nn.MaxPool2d),
        ("vgg16:classifier=two-layer,pool=average", nn.AvgPool2d),
        ("vgg16:pool=maximum", nn.MaxPool2d),
    ):
        assert isinstance(within.layer(models.build(spec), "features.pool5"), kind)
    with pytest.raises(niwaki.NiwakiError, match="average, maximum"):
        models.build("vgg16:pool=middle")
    with pytest.raises(niwaki.NiwakiError, match="relu, linear"):
        models.build("resnet20:stem=none")
