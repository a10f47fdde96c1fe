"""One cell of a sweep, run wherever a worker is: words become a network, which is pruned."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any

import niwaki
from niwaki.cli.blocks import whole_training_split
from niwaki.cli.own_code import task_of
from niwaki.cli.scope import selection_of
from niwaki.cli.setup import Setup, Words, set_up
from niwaki.cli.voice import voice
from niwaki.core.budget import Budget
from niwaki.methods.base.criterion import CRITERIA
from niwaki.sweep import Cell, Common, failed, measured
from niwaki.sweep.cell import Outcome
from niwaki.sweep.grid import split_model


def run_cell(shared: dict[str, Any], words: dict[str, Any]) -> Outcome:
    """What came of a cell; of one that fails, why. Only what ends the process is not caught."""
    try:
        return _measured(Common(**shared), Cell(**words))
    except Exception as error:  # models, data and measures of the user's may fail in any way
        return failed(error)


def _measured(common: Common, cell: Cell) -> Outcome:
    voice.trust = list(common.trust)
    setup, task = _set_up(common, cell.model, cell.seed), task_of(common.evaluate)
    method = CRITERIA.build(cell.criterion)
    result = niwaki.prune(
        setup.model,
        setup.inputs,
        Budget.parse(cell.budget),
        criterion=method,
        compensation=cell.repair,
        recovery=list(common.recovery),
        selection=selection_of(common.scope, common.only, common.skip),
        calibration=whole_training_split(setup, method, 200),
        evaluate=setup.batches if task is None else task,
        seed=cell.seed,
    )
    result = result.with_settings(**setup.settings)
    result = result.measured() if common.timed else result
    return measured(result.record, result.plan)


def _set_up(common: Common, model: str, seed: int) -> Setup:
    return _kept(dataclasses.astuple(_words(common, model, seed)))


def _words(common: Common, model: str, seed: int) -> Words:
    name, weights = split_model(model)
    return Words(
        name,
        weights,
        common.data,
        None if common.data_root is None else Path(common.data_root),
        input_shape=common.input_shape,
        device=common.device,
        seed=seed,
        calibration=common.calibration,
        judged=common.evaluate is None,
    )


@lru_cache(maxsize=1)
def _kept(words: tuple[Any, ...]) -> Setup:
    """Cells of the same model and seed that follow each other read weights and data once; pruning
    leaves the model as it is.
    """
    quiet, voice.quiet = voice.quiet, True  # what is to be said of a model was said of the first
    try:
        return set_up(Words(*words))
    finally:
        voice.quiet = quiet
