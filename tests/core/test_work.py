"""Pieces of work on one process, on two and on Ray: the same results, and deaths that cost what the
caller chose.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pieces_of_work
import pytest

from niwaki.core.errors import (
    MissingExtraError,
    NiwakiError,
    OutputError,
    SettingError,
    SurgeryError,
    TraceError,
    UnknownNameError,
)
from niwaki.core.work import Lost, LostWorkError, Workers, processes
from niwaki.core.work.on_ray import ray_cluster

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = [("local", 1), ("local", 2), ("ray", 2)]


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """Workers find this folder's modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        yield


@pytest.fixture(scope="module")
def cluster(here: None) -> Iterator[None]:
    """One for all tests: a second one would wait for its workers again."""
    pytest.importorskip("ray")
    with ray_cluster(2):
        yield


@pytest.fixture
def workers(request: pytest.FixtureRequest, here: None) -> Workers:
    engine, count = request.param
    if engine == "ray":
        request.getfixturevalue("cluster")
    return Workers(engine, count)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on this machine begin without importing torch anew: for what is not of their start."""
    monkeypatch.setattr(processes, "get_context", forked.context)


def on(*engines: tuple[str, int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "workers", engines, indirect=True, ids=[f"{engine} {count}" for engine, count in engines]
    )


@on(*ENGINES)
def test_results_and_errors_of_the_work_are_the_same_whoever_does_it(workers: Workers) -> None:
    pieces = {str(number): (number,) for number in range(4)}
    found = dict(workers.try_each(pieces_of_work.refusing, pieces))
    assert (found["0"], found["3"]) == (0, 6)
    one, two = found["1"], found["2"]
    assert isinstance(one, Lost)
    assert isinstance(one.raised, SettingError)
    assert one.reason == "SettingError: no ones"
    assert isinstance(two, Lost)
    assert "unknown number '2'" in two.reason
    assert isinstance(two.raised, UnknownNameError)
    with pytest.raises(SettingError, match="no ones"):
        dict(workers.run(pieces_of_work.refusing, {"1": (1,)}))


@pytest.mark.usefixtures("here", "soon")
def test_an_error_that_cannot_be_sent_is_known_by_its_words() -> None:
    pieces: dict[str, tuple[()]] = {"one": (), "two": ()}
    found = dict(Workers(count=2).try_each(pieces_of_work.unsendable, pieces))
    assert [reason(result) for result in found.values()] == ["Unsendable: no luck"] * 2


def reason(result: object) -> str:
    assert isinstance(result, Lost)
    return result.reason


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("number", "two", ["one"]),
        MissingExtraError("ray", "ray"),
        OutputError("runs/x exists"),
        SurgeryError("it differs", "conv1", 3, ("conv1",)),
        TraceError("it does not run", "fc", other_path=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_being_sent(error: NiwakiError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.usefixtures("here", "soon")
@pytest.mark.parametrize("count", [1, 2])
def test_no_pieces_need_no_workers(count: int) -> None:
    assert dict(Workers(count=count).run(pieces_of_work.doubled, {})) == {}
    assert dict(Workers("ray", count).try_each(pieces_of_work.doubled, {})) == {}
    pieces = {str(number): (number,) for number in range(5)}
    found = dict(Workers(count=count).run(pieces_of_work.doubled, pieces))
    assert found == {str(number): 2 * number for number in range(5)}


@pytest.mark.usefixtures("soon")
@on(("local", 2), ("ray", 2))
@pytest.mark.parametrize("deadliest", [1, 99], ids=["by chance", "always"])
def test_a_worker_that_dies_costs_its_piece_alone(
    workers: Workers, tmp_path: Path, deadliest: int
) -> None:
    pieces = {str(number): (number, str(tmp_path), deadliest) for number in range(5)}
    found = dict(workers.try_each(pieces_of_work.deadly, pieces))
    others = {name: result for name, result in found.items() if name != "2"}
    assert others == {"0": 0, "1": 2, "3": 6, "4": 8}
    if deadliest == 1:
        assert found["2"] == 4
    else:
        assert isinstance(found["2"], Lost)
        assert ("exit code -9" if workers.engine == "local" else "Ray worker") in found["2"].reason
        assert len(list(tmp_path.iterdir())) == 2  # it was tried twice


@pytest.mark.usefixtures("soon")
@on(("local", 2), ("ray", 2))
def test_where_all_is_needed_deaths_by_chance_cost_nothing(
    workers: Workers, tmp_path: Path
) -> None:
    pieces = {str(number): (number, str(tmp_path), 2) for number in range(4)}
    found = dict(workers.run(pieces_of_work.deadly, pieces))
    assert found == {"0": 0, "1": 2, "2": 4, "3": 6}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("soon")
@on(("local", 2), ("ray", 2))
def test_where_all_is_needed_work_that_always_kills_ends_in_a_sentence(
    workers: Workers, tmp_path: Path
) -> None:
    pieces = {"one": (1, str(tmp_path), 99), "two": (2, str(tmp_path), 99)}
    with pytest.raises(
        LostWorkError, match=r"two could not be done in 2 attempts: .*; is there enough memory\?"
    ):
        list(workers.run(pieces_of_work.deadly, pieces, attempts=2))
    assert len(list(tmp_path.iterdir())) == 2


def test_workers_that_cannot_be_are_refused() -> None:
    assert issubclass(LostWorkError, NiwakiError)
    with pytest.raises(UnknownNameError, match="unknown engine 'rai'; did you mean 'ray'"):
        Workers("rai")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="workers must be at least 1; got 0"):
        Workers(count=0)
