"""Other people's training loops keep a state of the process."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
with contextlib.suppress(ImportError, RuntimeError):  # before transformers, which imports it
    importlib.import_module("torchvision_cpu")
sys.path.pop(0)


@pytest.fixture(autouse=True)
def no_accelerator_before(one_thread: None) -> None:
    """accelerate keeps its precision for the whole process."""
    with contextlib.suppress(ImportError):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
