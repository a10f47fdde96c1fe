"""One random network is pruned in one random way, and the result is judged by a path that is none
of niwaki's own.

Units of groups that plain weights read are masked there, in those weights (`oracle.masked`); units
of all others are absent: NaN, which sums and statistics pass over (`absent`).
"""

from __future__ import annotations

import copy
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import oracle
import torch
from absent import PassingOverNan, erase
from random_networks import Drawn, drawn
from random_networks.draw import Counts, Draw
from torch import Tensor, nn

import niwaki
from niwaki.core.errors import NiwakiError
from niwaki.core.plan import Plan
from niwaki.methods.base import COMPENSATIONS
from niwaki.running import named_state

CRITERIA = ("l2", "l1", "random", "l2-gm", "lamp", "taylor", "fold", "reconstruct")
BUDGETS = (0.3, 0.5, 0.75, "params=0.4", "macs=0.5")
ONE_SIZE = "this graph of operators is for batches of"
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}


@dataclass
class Outcome:
    """What came of a seed.

    Attributes:
        kind: "proved", "refused", "nothing" (no group can be pruned), "WRONG" or "raw".
        words: the error, or where it is wrong.
        whole: why groups were left whole.
        judged: how many fresh inputs the oracle could speak of.
    """

    seed: int
    kind: str
    parts: list[str]
    settings: dict[str, Any]
    words: str = ""
    whole: tuple[str, ...] = ()
    judged: int = 0
    left: float = 1.0
    seconds: float = 0.0


def settings_of(seed: int) -> dict[str, Any]:
    """How the network of a seed is pruned."""
    draw = Draw(-1 - seed)
    compensation = draw.of(*(name for name in COMPENSATIONS if name not in ("auto", "thinet")))
    criterion = draw.of(*CRITERIA)
    looks = criterion in ("taylor", "reconstruct") or compensation in ("flap", "reconstruct")
    return {
        "criterion": criterion,
        "compensation": compensation,
        "budget": draw.of(*BUDGETS),
        "scope": draw.of("local", "global"),
        "form": draw.of("module", "module", "module", "graph"),
        "calibrated": looks or draw.yes(),
    }


def tried(seed: int) -> Outcome:
    """Prune the network of a seed, and judge what comes of it."""
    start = time.perf_counter()
    network, settings = drawn(seed), settings_of(seed)
    outcome = Outcome(seed, "proved", network.parts, settings)
    try:
        result = _pruned(network, dict(settings))
    except NiwakiError as error:
        outcome.kind, outcome.words = "refused", str(error)
        if "no group of channels" in outcome.words:
            outcome.kind = "nothing"
    except Exception:
        outcome.kind, outcome.words = "raw", traceback.format_exc(limit=-4)
    else:
        outcome.whole = tuple(
            sorted({note for note in result.notes.values() if note.startswith("left whole")})
        )
        outcome.left = niwaki.count_params(result.model) / niwaki.count_params(network.model)
        wrong = list(_wrongs(network, result, outcome))
        if wrong:
            outcome.kind, outcome.words = "WRONG", "; ".join(wrong[:3])
    outcome.seconds = time.perf_counter() - start
    return outcome


def _pruned(network: Drawn, settings: dict[str, Any]) -> niwaki.Result:
    calibrated = settings.pop("calibrated")
    batches = None
    if calibrated:
        batches = [x for words, x in network.others(5) if "larger" not in words][:2]
        batches.append(network.inputs)
    return niwaki.prune(
        network.model,
        network.inputs,
        calibration=batches,
        min_units=1,
        **settings,
    )


def _wrongs(network: Drawn, result: niwaki.Result, outcome: Outcome) -> Iterator[str]:
    model, pruned = network.model, result.model
    cut = result.cut
    allowed = TOLERANCE[next(model.parameters()).dtype]
    fixed = outcome.settings["form"] == "graph"
    judge = Judge(niwaki.trace(model, network.inputs), cut, fixed=fixed)
    scaled = any("spectral" in found.kind for found in judge.graph.computed)
    said = any(COUNTED in remark for remark in result.proof.remarks)
    if said and not any(isinstance(module, Counts) for module in model.modules()):
        return  # a number that its code computes from a size it keeps: more than weights is masked
    for training in (False, True):
        # a repair stands on the statistics of evaluation, and training scales weights
        if training and (fixed or scaled or outcome.settings["compensation"] != "none"):
            continue
        for words, x in network.others(outcome.seed):
            if fixed and not _same_but_batch(x, network.inputs):
                continue
            try:
                wanted = judge(x, training)
                run(model, x, training)
            except Exception:  # the original does not take it
                continue
            try:
                found = run(pruned, x, training)
            except Exception as error:
                if ONE_SIZE in str(error):  # a sentence on what this network does not take
                    continue
                yield f"does not run on {words}{' in training' * training}: {error}"
                continue
            if wanted is None or any(bool(t.isnan().any()) for t in wanted):
                continue
            outcome.judged += 1
            gap = distance(wanted, found)
            if not gap <= allowed:
                yield f"wrong by {gap:.1e} on {words}{' in training' * training}"


def _same_but_batch(x: Tensor, example: Any) -> bool:
    out: bool = x.shape[1:] == example.shape[1:]
    return out


def run(model: nn.Module, x: Any, training: bool) -> list[Tensor]:
    """Outputs of a copy, in evaluation mode or in training."""
    model = copy.deepcopy(model).train(training)
    with torch.no_grad():
        torch.manual_seed(0)
        return list(niwaki.running.tensors_in(niwaki.running.call(model, copy.deepcopy(x))))


def distance(wanted: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference as a share of the largest number; marks are equal or not."""
    if [t.shape for t in wanted] != [t.shape for t in found]:
        return float("inf")
    largest = 0.0
    for a, b in zip(wanted, found, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        plain = a[a.isfinite() & (a.abs() < 1e8)]
        scale = plain.abs().max().item() if plain.numel() else 1.0
        gap = torch.where(same, 0.0, (a - b).abs()).nan_to_num(float("inf")).max().item()
        largest = max(largest, gap / max(scale, 1e-12))
    return largest


COUNTED = "numbers from its counts of channels"


class Judge:
    """The masked original, made by index arithmetic on a copy alone."""

    def __init__(self, graph: niwaki.Graph, cut: niwaki.Cut, *, fixed: bool = False) -> None:
        """

        Args:
            fixed: the pruned network holds the numbers that the example's counts gave.
        """
        self.graph = graph
        plain = {name for name in cut.plan.kept if oracle.plainly_read(graph[name])}
        kept = {name: cut.plan[name] for name in cut.plan.kept}
        first = Plan({name: units for name, units in kept.items() if name in plain})
        mixings = {name: mixing for name, mixing in cut.mixings.items() if name in plain}
        self._model = oracle.masked(graph, first, mixings)
        self._erased = [name for name in kept if name not in plain]
        if not cut.mixings:  # then all may be absent, and what code counts of channels can be told
            self._erased, first = list(kept), Plan({})
            self._model = copy.deepcopy(graph.model)
        for module in self._model.modules():
            if isinstance(module, Counts):
                patched = present if not cut.mixings and not fixed else unknown
                module.count = patched  # type: ignore[method-assign]  # an instance's own
        self._able = not any(name in cut.mixings for name in self._erased)
        state = named_state(self._model)
        for name in self._erased:
            gone = torch.ones(graph[name].width, dtype=torch.bool)
            gone[list(kept[name].units)] = False
            for piece in graph[name].slices:
                index = (gone[piece.units] & (piece.units >= 0)).nonzero().squeeze(1)
                erase(state[piece.tensor], piece.axis, index)

    def __call__(self, x: Any, training: bool) -> list[Tensor] | None:
        """Outputs, or None where masking by weights is not what leaving out means."""
        if not self._able:
            return None
        try:
            with PassingOverNan() if self._erased else nullcontext():
                return run(self._model, x, training)
        except UnknownError:
            return None


def present(x: Tensor, axis: int = -1) -> int:
    """How many channels of an axis are there."""
    x = x.movedim(axis, -1)
    return int((~x.isnan()).reshape(-1, x.shape[-1]).any(0).sum())


class UnknownError(Exception):
    """The oracle cannot say."""


def unknown(x: Tensor, axis: int = -1) -> int:
    """With repairs, not all that is absent is marked."""
    raise UnknownError


def kind_of(words: str) -> str:
    """A refusal without its numbers and names, to count refusals by."""
    words = re.sub(r"\(.*?\.py:\d+\)|/[^ ,]*\.py:\d+", "", words)
    return re.sub(r"[\d.]+(e-?\d+)?", "#", words)[:160]
