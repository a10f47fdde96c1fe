"""The paper's two steps, train and prune-then-fine-tune, for any listed network and data set.

Where this departs from the published code: the epoch that is kept is chosen on a validation split
(a tenth of the training images), never on test data; and the penalty lies over the filters that are
to be pruned, and no others (docs/rni.md has all departures in a table).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from niwaki import models
from niwaki.core.errors import SettingError, UnknownNameError
from niwaki.data import Dataset
from niwaki.graph import Graph, trace
from niwaki.measure import Evaluation, evaluate
from niwaki.methods.base.criterion import score
from niwaki.methods.base.cut import Scores
from niwaki.methods.base.penalty import PenaltyOver
from niwaki.methods.rni.convert import with_sigmoid_batchnorm
from niwaki.methods.rni.parameters import parameter_groups
from niwaki.methods.rni.penalty import RNI
from niwaki.methods.slimming import Slimming
from niwaki.pruning._prune import prune
from niwaki.pruning.allocation import select
from niwaki.pruning.result import Result
from niwaki.pruning.selection import Rule, Selection
from niwaki.running import preserved_rng
from niwaki.training import Augment, Feed, FeedSettings, History, RunFolder, TrainSettings, fit
from niwaki.training._fit import ParameterGroups

Method = Literal["rni", "l1", "ucs"]
Decay = Literal["all", "weights"]
PUBLISHED = {"resnet56": "resnet56:stem=linear"}  # the paper's own form of a listed network
MIN_UNITS = 3  # filters that stay in a layer at least
WEIGHT_DECAY, SCALE_FACTOR, START = (
    1e-4,
    10.0,
    0.5,
)  # of weights; of γ's learning rate; of a plain BatchNorm's scale
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Setting:
    """What both steps are told; the defaults are the paper's for VGG-16.

    Attributes:
        rule: how a share becomes a threshold: "quantile" is the paper's (`niwaki.Selection`).
        decay: what decays by 1e-4 beside convolutions and linears: "all" is the paper's, everything
            of L1's and UCS's networks, biases and BatchNorm too; "weights": nothing.
        precision, compile: see `niwaki.training.TrainSettings`.
        limit: train on so many images only, the first of a fixed shuffle, and validate on half as
            many; None: all.
    """

    arch: str = "vgg16"
    method: Method = "rni"
    reg_weight: float = 1e-3
    b: float = 3.0
    epochs: int = 160
    lr: float = 0.1
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    limit: int | None = None
    rule: Rule = "quantile"
    decay: Decay = "all"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UnknownNameError("method", self.method, get_args(Method))
        if self.decay not in get_args(Decay):
            raise UnknownNameError("decay", self.decay, get_args(Decay))


def prunable(graph: Graph) -> tuple[str, ...]:
    """The groups that are pruned: of a residual network the first convolutions of its blocks, else
    all with a scale.
    """
    if isinstance(graph.model, models.ResNet):
        return ("layer*.conv1",)
    return tuple(group.name for group in graph.groups if group.scales)


def trained(
    setting: Setting,
    dataset: Dataset,
    folder: RunFolder | None = None,
    *,
    progress: bool = True,
    tested: bool = False,
) -> tuple[nn.Module, History]:
    """A network from scratch, with the method's penalty.

    Args:
        tested: note accuracy on the test images after every epoch, by which nothing is chosen.
    """
    model = fresh(setting, dataset).to(setting.device)
    history = _fitted(model, setting, dataset, penalty(model, setting), folder, progress, tested)
    return model.eval(), history


def fresh(setting: Setting, dataset: Dataset) -> nn.Module:
    """The network as training begins: always the same for the same seed."""
    channels, size, _ = dataset.input_shape
    with preserved_rng():
        torch.manual_seed(setting.seed)
        model = models.build(
            PUBLISHED.get(setting.arch, setting.arch),
            classes=dataset.classes,
            in_channels=channels,
            image_size=size,
        )
        return _prepared(model, setting)


def pruned(model: nn.Module, setting: Setting, dataset: Dataset, share: float) -> Result:
    """The network without its least important filters: one threshold for the network, for UCS one a
    layer.
    """
    inputs = models.example_inputs(model)
    return prune(
        model,
        inputs,
        criterion="bn-scale",
        budget=share,
        compensation="none",
        selection=Selection(
            "local" if setting.method == "ucs" else "global",
            only=prunable(trace(model, inputs)),
            min_units=MIN_UNITS,
            rule=setting.rule,
        ),
        evaluate=partial(dataset.split("test").to(setting.device).batches, EVALUATION_BATCH),
        seed=setting.seed,
    )


def tuned(
    model: nn.Module,
    setting: Setting,
    dataset: Dataset,
    folder: RunFolder | None = None,
    *,
    progress: bool = True,
    tested: bool = False,
) -> History:
    """Train a pruned network as before, in place, without the penalty."""
    history = _fitted(model, setting, dataset, None, folder, progress, tested)
    model.eval()
    return history


def test_accuracy(model: nn.Module, dataset: Dataset) -> float:
    """Share in [0, 1], on all test images."""
    return _on_test(model, dataset).accuracy


def penalty(model: nn.Module, setting: Setting) -> PenaltyOver | None:
    """What the method adds to the loss; UCS adds nothing."""
    if setting.method == "ucs":
        return None
    method = (
        RNI(setting.reg_weight, setting.b)
        if setting.method == "rni"
        else Slimming(setting.reg_weight)
    )
    graph = trace(model, models.example_inputs(model))
    return method.over(graph, only=prunable(graph))


def importances(model: nn.Module) -> Tensor:
    """The factors of all filters that are pruned, (filters,), on the CPU: sigmoid(γ), or |γ| of a
    plain BatchNorm.
    """
    graph = trace(model, models.example_inputs(model))
    scores = score(graph, "bn-scale")
    plan = select(Scores(graph, scores), 0.0, Selection(only=prunable(graph))).plan
    return torch.cat([scores[name] for name in plan])


def _prepared(model: nn.Module, setting: Setting) -> nn.Module:
    if setting.method == "rni":
        return with_sigmoid_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.constant_(module.weight, START)
    return model


def _augment(dataset: Dataset) -> Augment:
    """Four pixels of 32, as usual for CIFAR, and mirrored; grey images are digits, which are not
    mirrored.
    """
    channels, size, _ = dataset.input_shape
    return Augment(pad=size // 8, border="zero", flip=channels == 3)


def _fitted(
    model: nn.Module,
    setting: Setting,
    dataset: Dataset,
    added: PenaltyOver | None,
    folder: RunFolder | None,
    progress: bool,
    tested: bool,
) -> History:
    train, validation = (dataset.split(name) for name in ("train", "validation"))
    if setting.limit is not None:
        if not 0 < setting.limit <= len(train):
            raise SettingError(
                f"limit must lie between 1 and the {len(train)} training images; got "
                f"{setting.limit}"
            )
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        train = train.take(order[: setting.limit])
        few = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0))[
            : max(1, setting.limit // 2)
        ]
        validation = validation.take(few)
    validation = validation.to(setting.device)
    feed = Feed(
        train.to(setting.device),
        FeedSettings(
            setting.batch_size, _augment(dataset), seed=setting.seed, drop_last=setting.compile
        ),
    )
    settings = TrainSettings(
        epochs=setting.epochs,
        lr=setting.lr,
        weight_decay=WEIGHT_DECAY,
        schedule="multistep",
        seed=setting.seed,
        precision=setting.precision,
        channels_last=True,
        compile=setting.compile,
    )
    if folder is not None:
        folder = dataclasses.replace(
            folder, describes={**folder.describes, "arch": setting.arch, "method": setting.method}
        )
    return fit(
        model,
        feed,
        settings=settings,
        validate=lambda network: evaluate(network, validation.batches(EVALUATION_BATCH)),
        penalty=added,
        parameter_groups=groups_of(model, setting),
        folder=folder,
        progress=progress,
        observe={"test": partial(_on_test, dataset=dataset)} if tested else None,
    )


def groups_of(model: nn.Module, setting: Setting) -> ParameterGroups | None:
    """What decays by how much: RNI spares Sigmoid BatchNorm, L1 and UCS spare nothing."""
    if setting.method != "rni" and setting.decay == "all":
        return None
    return parameter_groups(model, weight_decay=WEIGHT_DECAY, factor=SCALE_FACTOR)


def _on_test(model: nn.Module, dataset: Dataset) -> Evaluation:
    device = next(model.parameters()).device
    return evaluate(model, dataset.split("test").to(device).batches(EVALUATION_BATCH))
