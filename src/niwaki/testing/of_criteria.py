"""What a criterion owes."""

from __future__ import annotations

import copy

import torch

from niwaki.core.errors import NiwakiError, SettingError
from niwaki.graph import Graph, trace
from niwaki.methods.base import (
    CRITERIA,
    Calibration,
    Criterion,
    ScoreFunction,
    Scores,
    as_criterion,
    score,
)
from niwaki.pruning import prune
from niwaki.testing.networks import NETWORKS, build, calibration
from niwaki.testing.untouched import untouched


def check_criterion(criterion: Criterion | str | ScoreFunction) -> None:
    """Hold a criterion to what `niwaki.prune` relies on, on three small networks in float64: a
    perceptron, a residual network of convolutions, and attention.

    * it gives the groups that it scores one finite number a unit, on the CPU, as (width,);
    * it gives the same numbers for the same seed, and draws from `evidence.generator` only;
    * it leaves the model as it was;
    * where it needs inputs, or cannot score a group, it says so with a `SettingError` of one line;
    * its notation, where it is registered, makes it again;
    * networks pruned by it pass the proof.

    Args:
        criterion: a `Criterion`, its notation, or a function (group, evidence) → scores.

    Raises:
        AssertionError: the rule that is broken, and on which network.
        UnknownNameError: there is no criterion of this name.

    Example:
        >>> check_criterion(lambda group, evidence: group.rows(evidence.state).abs().amax(1))
    """
    method = as_criterion(criterion)
    _spelled_as_built(method)
    refusals = 0
    for name in NETWORKS:
        model, inputs = build(name)
        seen, graph = calibration(inputs), trace(model, inputs)
        scores = _scored(method, graph, seen, name)
        refusals += scores is None
        if scores is None:
            continue
        _one_number_a_unit(scores, graph, name)
        _the_same_again(method, graph, seen, scores, name)
        _says_that_it_needs_inputs(method, graph, name)
        unscored = tuple(group.name for group in graph.groups if group.name not in scores)
        result = prune(
            model,
            inputs,
            0.5,
            criterion=method,
            calibration=seen,
            skip=unscored,
        )
        assert result.plan.kept, f"a network pruned by it lost nothing ({name})"
    assert refusals < len(NETWORKS), "it scores none of the networks that it was tried on"


def _spelled_as_built(method: Criterion) -> None:
    spelled = CRITERIA.spell(method)
    if spelled.partition(":")[0] in CRITERIA:
        assert CRITERIA.build(spelled) == method, (
            f"its notation {spelled!r} makes another criterion; its settings must be fields of a "
            "frozen dataclass"
        )


def _scored(method: Criterion, graph: Graph, seen: Calibration, name: str) -> Scores | None:
    """Its scores; None where it says in a line that it cannot score this network."""
    try:
        with untouched(graph.model):
            return score(graph, method, calibration=seen, say=lambda remark: None)
    except SettingError as error:
        _in_one_line(error, name)
        return None
    except AssertionError as error:
        raise AssertionError(f"{error} ({name})") from None
    except Exception as error:
        raise AssertionError(
            f"it fails with a {type(error).__name__} on {name}: {error}; what it cannot score "
            "it must refuse with niwaki.core.errors.SettingError"
        ) from error


def _in_one_line(error: NiwakiError, name: str) -> None:
    if "\n" in str(error):
        raise AssertionError(f"its refusal takes more than one line ({name}): {error}")


def _one_number_a_unit(scores: Scores, graph: Graph, name: str) -> None:
    strangers = sorted(set(scores) - {group.name for group in graph.groups})
    assert not strangers, f"it scores {strangers[0]!r}, which is no group of the graph ({name})"
    assert len(scores), f"it scores no group, and does not say why ({name})"
    for group in (graph[known] for known in scores):
        values = scores[group.name]
        assert values.shape == (group.width,), (
            f"it gives group {group.name!r} scores of shape {tuple(values.shape)}, not "
            f"({group.width},) ({name})"
        )
        assert values.device.type == "cpu", f"its scores are not on the CPU ({name})"
        assert bool(torch.isfinite(values).all()), (
            f"it gives group {group.name!r} scores that are not finite ({name})"
        )


def _the_same_again(
    method: Criterion, graph: Graph, seen: Calibration, scores: Scores, name: str
) -> None:
    again = score(graph, copy.deepcopy(method), calibration=seen, say=lambda remark: None)
    for group, values in scores.items():
        assert torch.equal(values, again[group]), (
            f"with the same seed it scores group {group!r} differently the second time ({name})"
        )


def _says_that_it_needs_inputs(method: Criterion, graph: Graph, name: str) -> None:
    """Without inputs it either does without, or refuses."""
    try:
        score(graph, method, say=lambda remark: None)
    except NiwakiError as error:
        _in_one_line(error, name)
    except Exception as error:
        raise AssertionError(
            f"without calibration inputs it fails with a {type(error).__name__} on {name}: "
            f"{error}; ask evidence.batches(…) for them, which says that there are none"
        ) from error
