"""What tests share: where the data and checkpoints are that are too large for the repository, and
quick settings.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timed import take_few

import niwaki.measure._snapshot  # looked up by name below
import niwaki.pruning.bench
import niwaki.pruning.cost  # noqa: F401  # tests look it up so

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


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


@pytest.fixture(scope="session")
def few_images(shared_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the shared data/, with the first 2,000 images of every file alone: a recipe that
    takes a few hundred need not decode 60,000.
    """
    arrow, parquet = (pytest.importorskip(f"pyarrow{part}") for part in ("", ".parquet"))
    few = tmp_path_factory.mktemp("few-images")
    for path in (shared_root / "data").rglob("*.parquet"):
        place = few / path.relative_to(shared_root / "data")
        place.parent.mkdir(parents=True, exist_ok=True)
        with parquet.ParquetFile(path) as file:
            first = next(file.iter_batches(2000))
            parquet.write_table(arrow.Table.from_batches([first]), place)
    return few


@pytest.fixture
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured for a second by default, and peak memory on one more run: tests of other
    things need not wait.
    """
    take_few(monkeypatch)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models: more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; what asks for it is skipped where there is none."""
    sync = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    with sync.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()
