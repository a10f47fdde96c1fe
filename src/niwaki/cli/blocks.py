"""What the command line says of MINT: groups, samples, workers, blocks and cut-offs, and scores
from a file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

import niwaki
from niwaki.cli.console import results, table
from niwaki.cli.mint_words import by_pattern, groups_of
from niwaki.cli.setup import Setup
from niwaki.core.budget import Budget
from niwaki.core.errors import SettingError
from niwaki.core.records import Record
from niwaki.core.registry import Registry, parse
from niwaki.graph import trace
from niwaki.graph.pairs import layer_pairs
from niwaki.io.scores import Scores, load_scores
from niwaki.measure import Task, evaluate
from niwaki.methods.base.criterion import CRITERIA, Criterion
from niwaki.methods.base.evidence import Calibration, Evidence
from niwaki.methods.mint._layer_dependencies import Dependency, layer_dependencies
from niwaki.methods.mint.blocks import CutOff, cut_blocks, grid
from niwaki.methods.mint.by_layer import PairSettings
from niwaki.methods.mint.criterion import Mint, unit_scores
from niwaki.methods.mint.dependency_maps import dependency_maps
from niwaki.pruning.result import Result
from niwaki.pruning.trimming import Masks, scope, trim, without_idle

Groups = Annotated[
    str | None,
    typer.Option(
        help="mint: into how many groups to put a layer's channels (8 if left out); 250x100 for "
        "parents and children; 8,fc2=250x100 to set a layer apart"
    ),
]
PerClass = Annotated[
    str | None,
    typer.Option(
        help="mint: how many inputs to draw of each class (250 if left out); 250,fc2=500 to set a "
        "layer apart"
    ),
]
Engine = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        help="mint: where to compute: in processes here (local), or on a Ray cluster (ray)"
    ),
]
Workers = Annotated[int | None, typer.Option(help="mint: how many processes", min=1)]


@dataclass(frozen=True)
class MintWords:
    """What the user said of MINT."""

    groups: str | None = None
    samples_per_class: str | None = None
    engine: str | None = None
    workers: int | None = None
    folder: Path | None = None

    def criterion(self, spec: str) -> Criterion:
        """The criterion that was asked for, with these settings.

        Raises:
            SettingError: they are given for another criterion, or twice.
        """
        settings_given = [key for key, value in vars(self).items() if value is not None]
        name = spec.partition(":")[0]
        if settings_given and name != "mint":
            option = settings_given[0].replace("_", "-").replace("folder", "keep")
            raise SettingError(
                f"--{option} is a setting of mint; the criterion is {spec!r}: use --criterion mint"
            )
        said, by_layer = self._said()
        settings = ",".join(f"{key}={value}" for key, value in said.items())
        built = CRITERIA.build(
            spec if not said else f"{spec}{',' if ':' in spec else ':'}{settings}"
        )
        return replace(built, by_layer=by_layer) if isinstance(built, Mint) and by_layer else built

    def _said(self) -> tuple[dict[str, str], dict[str, PairSettings]]:
        """Settings of all layers as text, and what single layers have of their own."""
        said: dict[str, object] = {
            "engine": self.engine,
            "workers": self.workers,
            "folder": self.folder,
        }
        by_layer: dict[str, PairSettings] = {}
        if self.groups is not None:
            common, own = by_pattern(self.groups, groups_of, "--groups", "8,fc2=250x100")
            said["groups"], said["child_groups"] = common or (None, None)
            by_layer |= {layer: PairSettings(*pair) for layer, pair in own.items()}
        if self.samples_per_class is not None:
            text, example = self.samples_per_class, "250,fc2=500"
            said["samples_per_class"], each = by_pattern(text, int, "--samples-per-class", example)
            for layer, number in each.items():
                so_far = by_layer.get(layer, PairSettings())
                by_layer[layer] = replace(so_far, per_class=number)
        return {key: str(value) for key, value in said.items() if value is not None}, by_layer


def whole_training_split(
    setup: Setup, criterion: Criterion | None, batch_size: int
) -> Calibration | None:
    """What was asked for as --calibration; for MINT, which draws itself, else all training
    inputs.
    """
    if setup.calibration is not None or not isinstance(criterion, Mint) or setup.dataset is None:
        return setup.calibration
    if setup.settings.get("split") == "train":
        raise SettingError(
            "mint draws from the training split, so that accuracy is measured on another: --split "
            "test"
        )
    train = setup.dataset.split("train").to(str(setup.settings["device"]))
    return Calibration.labelled(lambda: train.batches(batch_size))


def scores_of(path: Path, setup: Setup) -> Scores:
    """Scores from a file, of this network."""
    return load_scores(path, trace(setup.model, setup.inputs))


_BLOCKS: Registry[BlockSettings] = Registry("scope")


@_BLOCKS.register("blocks")
@dataclass(frozen=True)
class BlockSettings:
    """What `--scope blocks` says.

    Attributes:
        upper_limit: the share of its weights that a layer loses at most; by layer in quotes,
            `upper_limit="0.75,conv5=0.45"`.
        cut_off: place among the sorted dependencies, or a grid from:to:step of them.
        fed: every group of channels keeps the strongest block that it reads.
    """

    upper_limit: str = "0.75"
    cut_off: str | None = None
    fed: bool = False


def block_settings(scope: str | None, dry_run: bool) -> BlockSettings | None:
    """What `--scope blocks:…` says; None where whole channels go.

    Raises:
        SettingError: it cannot be read, or nothing is to be cut.
    """
    if scope is None or parse(scope)[0] != "blocks":
        return None
    if dry_run:
        raise SettingError(
            "--dry-run foresees whole channels; for blocks give a grid, --scope "
            "blocks:cut_off=0:1:0.1"
        )
    return _BLOCKS.build(scope)


@dataclass(frozen=True)
class BlockWords:
    """What the user said of the trimming of blocks.

    Attributes:
        budget: share of the weights to remove; cut_offs: or where the line is cut, one place or a
            grid.
    """

    budget: Budget | None
    cut_offs: str | None
    upper_limit: str | None
    fed: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def all(self) -> list[CutOff]:
        """The cut-offs that were asked for."""
        limit, limits = by_pattern(
            self.upper_limit or "0.75", float, "upper_limit", "0.75,conv5=0.45"
        )
        limit = 0.75 if limit is None else limit
        if self.cut_offs is not None:
            if self.budget is not None:
                raise SettingError(
                    "cut_off of --scope blocks and --budget both say how much goes; give one of "
                    "them"
                )
            return [
                CutOff(share=share, upper_limit=limit, fed=self.fed, limits=limits)
                for share in grid(self.cut_offs)
            ]
        if self.budget is not None and self.budget.unit not in ("channels", "params"):
            raise SettingError(
                f"blocks go by a share of the weights: --budget params=0.9; got {self.budget}"
            )
        return [
            CutOff(
                params=0.5 if self.budget is None else self.budget.amount,
                upper_limit=limit,
                fed=self.fed,
                limits=limits,
            )
        ]


def scored_by_mint(
    setup: Setup, criterion: Mint, calibration: Calibration | None, seed: int
) -> Scores:
    """What pairs of layers come to, the scores of units made of it, and how long that took."""
    start = time.perf_counter()
    graph = trace(setup.model, setup.inputs)
    evidence = Evidence(graph, calibration, torch.Generator().manual_seed(seed))
    dependencies = layer_dependencies(evidence, layer_pairs(graph), criterion.estimation())
    return Scores(
        str(criterion),
        unit_scores(graph, dependencies),
        dependencies,
        {"seconds": time.perf_counter() - start},
    )


def _of_pairs(scores: Scores | None) -> Scores:
    """Scores by whose dependencies blocks can be chosen.

    Raises:
        SettingError: another criterion than mint was asked for, or is what a file holds.
    """
    if scores is None:
        raise SettingError("only mint says which blocks go: --criterion mint with --scope blocks")
    if not scores.dependencies:
        raise SettingError(
            f"these are scores of {scores.criterion}, without dependencies; blocks need those of "
            "mint"
        )
    return scores


def with_dependencies(result: Result, scores: Scores) -> Result:
    """A pruned network with what its scores were made of, what must be said of that, and the time
    that it took.
    """
    if not scores.dependencies:
        return result
    maps = dependency_maps(scores.dependencies, units=result.plan)
    remarks = tuple(
        dict.fromkeys(remark for item in scores.dependencies for remark in item.remarks)
    )
    record = replace(result.record, notes=(*result.record.notes, *remarks))
    return replace(result, record=_with_time(record, scores), dependencies=maps)


def _with_time(record: Record, scores: Scores) -> Record:
    """With what the scoring took before the pruning was called."""
    before = scores.settings.get("seconds", 0.0)
    return replace(
        record, seconds={**record.seconds, "score": record.seconds.get("score", 0.0) + before}
    )


def trim_blocks(
    setup: Setup, scores: Scores | None, words: BlockWords, task: Task | None, seed: int
) -> Result | None:
    """One trimmed network; for a grid of cut-offs its table, and none."""
    scores, cut_offs = _of_pairs(scores), words.all()
    dependencies = list(scores.dependencies)
    if len(cut_offs) == 1:
        trimmed = trim(
            setup.model,
            setup.inputs,
            cut_off=cut_offs[0],
            dependencies=dependencies,
            only=words.only,
            skip=words.skip,
            evaluate=setup.batches if task is None else task,
            seed=seed,
            settings={**setup.settings, "criterion": scores.criterion},
        )
        return replace(trimmed, record=_with_time(trimmed.record, scores))
    rows = [_line(setup, dependencies, words, cut_off) for cut_off in cut_offs]
    title = (
        "before any retraining; accuracy on the validation split, as one of them is to be chosen"
    )
    results.print(table(title, ("cut-off", "weights gone", "parameters left", "accuracy"), rows))
    return None


def _line(
    setup: Setup, dependencies: list[Dependency], words: BlockWords, cut_off: CutOff
) -> tuple[str, ...]:
    """What one cut-off of a grid would do."""
    inside = {
        pair.weight for pair in scope([item.pair for item in dependencies], words.only, words.skip)
    }
    state = dict(setup.model.named_parameters())
    plan = cut_blocks([item for item in dependencies if item.pair.weight in inside], state, cut_off)
    lean = without_idle(trace(setup.model, setup.inputs), plan)
    zeros = sum(
        int((~blocks.mask(lean.model.get_parameter(name))).sum())
        for name, blocks in lean.blocks.items()
    )
    accuracy = "–"
    if setup.dataset is not None:
        held_out = setup.dataset.split("validation").to(str(setup.settings["device"]))
        accuracy = f"{evaluate(lean.model, held_out.batches(200)).accuracy:.2%}"
    removed = Masks(plan, state).gone
    return (
        f"{cut_off.share:g}",
        f"{removed:.2%}",
        f"{niwaki.count_params(lean.model) - zeros:,}",
        accuracy,
    )
