"""What workers measure in the tests of sweeps; a module of its own, as they import it by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def norm(model: nn.Module, deaths: str | None = None) -> dict[str, Any]:
    """A score that needs no data; with a folder, the first process that asks for it dies."""
    if deaths is not None and not any(Path(deaths).iterdir()):
        (Path(deaths) / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"norm": sum(float(p.detach().double().square().sum()) for p in model.parameters())}
