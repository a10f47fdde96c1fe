"""What tests share: where the data and checkpoints are that are too large for the repository, and
quick settings.
"""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import niwaki.measure._snapshot  # looked up by name below
import niwaki.pruning.bench
import niwaki.pruning.cost  # noqa: F401  # tests look it up so

os.environ.setdefault("RAY_worker_niceness", "0")  # else its workers wait for the tests beside them
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the others have the other cores


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder with data/ and checkpoints/: $NIWAKI_SHARED, or `shared` beside the checkout."""
    root = Path(os.environ.get("NIWAKI_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / "data").is_dir():
        pytest.skip(
            f"needs the shared data and checkpoints; {root} is not there (set NIWAKI_SHARED)"
        )
    return root


@pytest.fixture
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured for a second by default, and peak memory on one more run: tests of other
    things need not wait.
    """
    places = [sys.modules["niwaki.measure._snapshot"], sys.modules["niwaki.pruning.bench"]]
    quick = partial(places[0].measure_latency, repeats=2, warmup=1, seconds=0)
    for place in places:
        monkeypatch.setattr(place, "measure_latency", quick)
        monkeypatch.setattr(place, "peak_memory", lambda model, inputs: 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models: more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
