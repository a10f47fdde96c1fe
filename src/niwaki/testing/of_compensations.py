"""What a compensation owes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from niwaki.core.errors import SettingError
from niwaki.core.mixing import Mixing
from niwaki.core.plan import Kept, Plan
from niwaki.graph import Graph, trace
from niwaki.methods.base import (
    COMPENSATIONS,
    Calibration,
    Compensation,
    Cut,
    Scores,
    compensate,
)
from niwaki.pruning import prune, select
from niwaki.testing.networks import NETWORKS, build, calibration
from niwaki.testing.untouched import untouched


def check_compensation(compensation: Compensation | str) -> None:
    """Hold a compensation to what `niwaki.prune` relies on, on three small networks in float64 at
    half of the channels of every group: a perceptron, a residual network of convolutions, and
    attention.

    * its mixings are of groups that lose units: a finite matrix (width, kept), and a finite shift
      (width,) or none;
    * it keeps to the plan, and says something of every group that loses units;
    * it does the same for the same seed, and draws from `evidence.generator` only;
    * where nothing goes it mixes nothing;
    * it leaves the model as it was;
    * networks pruned with it pass the proof.

    Args:
        compensation: a `Compensation`, or its notation.

    Raises:
        AssertionError: the rule that is broken, and on which network.
        UnknownNameError: there is no compensation of this name.
    """
    method = COMPENSATIONS.build(compensation) if isinstance(compensation, str) else compensation
    for name in NETWORKS:
        model, inputs = build(name)
        graph, seen = trace(model, inputs), calibration(inputs)
        plan = _half(graph)
        cut = _repaired(method, Cut(graph, plan), seen, name)
        assert cut.plan.kept == plan.kept, f"it keeps other units than the plan says ({name})"
        _says_what_it_did(cut, plan, name)
        for group, mixing in cut.mixings.items():
            _mixes_units(group, mixing, plan.units.get(group), name)
        _the_same_again(method, cut, seen, name)
        whole = _repaired(method, Cut(graph, Plan()), seen, name)
        assert not whole.mixings, f"it mixes units where nothing goes ({name})"
        result = prune(model, inputs, 0.5, compensation=method, calibration=seen)
        assert result.plan.kept, f"nothing that it repaired could be cut ({name})"


def _half(graph: Graph) -> Plan:
    """Half of every group, chosen by chance."""
    generator = torch.Generator().manual_seed(2)
    scores = {
        group.name: torch.rand(group.width, generator=generator, dtype=torch.float64)
        for group in graph.groups
    }
    return select(Scores(graph, scores), 0.5).plan


def _repaired(method: Compensation, cut: Cut, seen: Calibration, name: str) -> Cut:
    try:
        with untouched(cut.graph.model):
            return compensate(cut, method, calibration=seen)
    except SettingError as error:
        raise AssertionError(f"it refuses {name}: {error}") from error
    except AssertionError as error:
        raise AssertionError(f"{error} ({name})") from None
    except Exception as error:
        raise AssertionError(
            f"it fails with a {type(error).__name__} on {name}: {error}; a group that it can do "
            "nothing for gets no mixing, and a note that says why"
        ) from error


def _says_what_it_did(cut: Cut, plan: Plan, name: str) -> None:
    for group in plan.kept:
        assert group in cut.mixings or cut.notes.get(group) is not None or not cut.notes, (
            f"it did nothing for group {group!r} and does not say why ({name})"
        )
    strangers = sorted(set(cut.mixings) - set(plan.kept))
    assert not strangers, f"it mixes {strangers[0]!r}, of which nothing goes ({name})"


def _mixes_units(group: str, mixing: Mixing, kept: Kept | None, name: str) -> None:
    assert kept is not None
    for matrix, shift in _parts(mixing):
        shape = (kept.width, len(kept.units))
        assert matrix.shape == shape, (
            f"its matrix for group {group!r} is {tuple(matrix.shape)}, not {shape} ({name})"
        )
        assert bool(matrix.isfinite().all()), f"its matrix for {group!r} is not finite ({name})"
        if shift is not None:
            assert shift.shape == (kept.width,), (
                f"its shift for group {group!r} is {tuple(shift.shape)}, not ({kept.width},) "
                f"({name})"
            )
            assert bool(shift.isfinite().all()), f"its shift for {group!r} is not finite ({name})"


def _parts(mixing: Mixing) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    for part in (mixing, *mixing.readers.values()):
        yield part.matrix, part.shift


def _the_same_again(method: Compensation, cut: Cut, seen: Calibration, name: str) -> None:
    again = compensate(Cut(cut.graph, cut.plan), method, calibration=seen)
    for group, mixing in cut.mixings.items():
        assert group in again.mixings, f"the second time it leaves {group!r} unrepaired ({name})"
        assert torch.equal(mixing.matrix, again.mixings[group].matrix), (
            f"with the same seed it mixes group {group!r} differently the second time ({name})"
        )
