"""Where the tests find the data and checkpoints that are too large for the repository."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_root() -> Path:
    """The folder with data/ and checkpoints/: $NIWAKI_SHARED, or `shared` beside the checkout."""
    root = Path(os.environ.get("NIWAKI_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / "data").is_dir():
        pytest.skip(f"needs the shared data and checkpoints; {root} is not there (set NIWAKI_SHARED)")
    return root
